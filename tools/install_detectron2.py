#!/usr/bin/env python
"""The command `ddl-d2 install-detectron2`; see `ddl_d2/cli/install_detectron2.py`."""

from ddl_d2.cli.common import run
from ddl_d2.cli.install_detectron2 import main

if __name__ == "__main__":
    run(main)
