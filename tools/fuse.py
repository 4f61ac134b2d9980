#!/usr/bin/env python
"""The command `ddl-d2 fuse`; see `ddl_d2/cli/fuse.py`."""

from ddl_d2.cli.common import run
from ddl_d2.cli.fuse import main

if __name__ == "__main__":
    run(main)
