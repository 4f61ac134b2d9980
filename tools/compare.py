#!/usr/bin/env python
"""The command `ddl-d2 compare`; see `ddl_d2/cli/compare.py`."""

from ddl_d2.cli.common import run
from ddl_d2.cli.compare import main

if __name__ == "__main__":
    run(main)
