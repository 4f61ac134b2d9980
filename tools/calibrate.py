#!/usr/bin/env python
"""The command `ddl-d2 calibrate`; see `ddl_d2/cli/calibrate.py`."""

from ddl_d2.cli.calibrate import main
from ddl_d2.cli.common import run

if __name__ == "__main__":
    run(main)
