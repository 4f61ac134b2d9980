#!/usr/bin/env python
"""The command `ddl-d2 robustness`; see `ddl_d2/cli/robustness.py`."""

from ddl_d2.cli.common import run
from ddl_d2.cli.robustness import main

if __name__ == "__main__":
    run(main)
