#!/usr/bin/env python
"""The command `ddl-d2 train-autoencoder`; see `ddl_d2/cli/train_autoencoder.py`."""

from ddl_d2.cli.common import run
from ddl_d2.cli.train_autoencoder import main

if __name__ == "__main__":
    run(main)
