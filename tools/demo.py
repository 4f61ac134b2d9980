#!/usr/bin/env python
"""The command `ddl-d2 demo`; see `ddl_d2/cli/demo.py`."""

from ddl_d2.cli.common import run
from ddl_d2.cli.demo import main

if __name__ == "__main__":
    run(main)
