#!/usr/bin/env python
"""The command `ddl-d2 replay`; see `ddl_d2/cli/replay.py`."""

from ddl_d2.cli.common import run
from ddl_d2.cli.replay import main

if __name__ == "__main__":
    run(main)
