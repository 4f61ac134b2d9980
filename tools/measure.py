#!/usr/bin/env python
"""The command `ddl-d2 measure`; see `ddl_d2/cli/measure.py`."""

from ddl_d2.cli.common import run
from ddl_d2.cli.measure import main

if __name__ == "__main__":
    run(main)
