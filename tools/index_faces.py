#!/usr/bin/env python
"""The command `ddl-d2 index-faces`; see `ddl_d2/cli/index_faces.py`."""

from ddl_d2.cli.common import run
from ddl_d2.cli.index_faces import main

if __name__ == "__main__":
    run(main)
