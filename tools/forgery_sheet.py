#!/usr/bin/env python
"""The command `ddl-d2 forgery-sheet`; see `ddl_d2/cli/forgery_sheet.py`."""

from ddl_d2.cli.common import run
from ddl_d2.cli.forgery_sheet import main

if __name__ == "__main__":
    run(main)
