#!/usr/bin/env python
"""The command `ddl-d2 adapt`; see `ddl_d2/cli/adapt.py`."""

from ddl_d2.cli.adapt import main
from ddl_d2.cli.common import run

if __name__ == "__main__":
    run(main)
