#!/usr/bin/env python
"""The command `ddl-d2 examine`; see `ddl_d2/cli/examine.py`."""

from ddl_d2.cli.common import run
from ddl_d2.cli.examine import main

if __name__ == "__main__":
    run(main)
