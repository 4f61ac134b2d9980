#!/usr/bin/env python
"""The command `ddl-d2 review`; see `ddl_d2/cli/review.py`."""

from ddl_d2.cli.common import run
from ddl_d2.cli.review import main

if __name__ == "__main__":
    run(main)
