#!/usr/bin/env python
"""The command `ddl-d2 export`; see `ddl_d2/cli/export.py`."""

from ddl_d2.cli.common import run
from ddl_d2.cli.export import main

if __name__ == "__main__":
    run(main)
