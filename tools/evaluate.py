#!/usr/bin/env python
"""The command `ddl-d2 evaluate`; see `ddl_d2/cli/evaluate.py`."""

from ddl_d2.cli.common import run
from ddl_d2.cli.evaluate import main

if __name__ == "__main__":
    run(main)
