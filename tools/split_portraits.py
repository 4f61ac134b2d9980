#!/usr/bin/env python
"""The command `ddl-d2 split-portraits`; see `ddl_d2/cli/split_portraits.py`."""

from ddl_d2.cli.common import run
from ddl_d2.cli.split_portraits import main

if __name__ == "__main__":
    run(main)
