#!/usr/bin/env python
"""The command `ddl-d2 landmark`; see `ddl_d2/cli/landmark.py`."""

from ddl_d2.cli.common import run
from ddl_d2.cli.landmark import main

if __name__ == "__main__":
    run(main)
