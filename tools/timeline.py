#!/usr/bin/env python
"""The command `ddl-d2 timeline`; see `ddl_d2/cli/timeline.py`."""

from ddl_d2.cli.common import run
from ddl_d2.cli.timeline import main

if __name__ == "__main__":
    run(main)
