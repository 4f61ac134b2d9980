#!/usr/bin/env python
"""The command `ddl-d2 train`; see `ddl_d2/cli/train.py`."""

from ddl_d2.cli.common import run
from ddl_d2.cli.train import main

if __name__ == "__main__":
    run(main)
