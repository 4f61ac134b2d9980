#!/usr/bin/env python
"""The command `ddl-d2 ddl-x`; see `ddl_d2/cli/ddl_x.py`."""

from ddl_d2.cli.common import run
from ddl_d2.cli.ddl_x import main

if __name__ == "__main__":
    run(main)
