#!/usr/bin/env python
"""The command `ddl-d2 report`; see `ddl_d2/cli/report.py`."""

from ddl_d2.cli.common import run
from ddl_d2.cli.report import main

if __name__ == "__main__":
    run(main)
