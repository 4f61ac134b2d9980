#!/usr/bin/env python
"""The command `ddl-d2 release-weights`; see `ddl_d2/cli/release_weights.py`."""

from ddl_d2.cli.common import run
from ddl_d2.cli.release_weights import main

if __name__ == "__main__":
    run(main)
