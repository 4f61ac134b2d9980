#!/usr/bin/env python
"""The command `ddl-d2 check-dataset`; see `ddl_d2/cli/check_dataset.py`."""

from ddl_d2.cli.check_dataset import main
from ddl_d2.cli.common import run

if __name__ == "__main__":
    run(main)
