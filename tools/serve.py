#!/usr/bin/env python
"""The command `ddl-d2 serve`; see `ddl_d2/cli/serve.py`."""

from ddl_d2.cli.common import run
from ddl_d2.cli.serve import main

if __name__ == "__main__":
    run(main)
