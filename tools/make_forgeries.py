#!/usr/bin/env python
"""The command `ddl-d2 make-forgeries`; see `ddl_d2/cli/make_forgeries.py`."""

from ddl_d2.cli.common import run
from ddl_d2.cli.make_forgeries import main

if __name__ == "__main__":
    run(main)
