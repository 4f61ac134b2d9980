#!/usr/bin/env python
"""The command `ddl-d2 cache-tokens`; see `ddl_d2/cli/cache_tokens.py`."""

from ddl_d2.cli.cache_tokens import main
from ddl_d2.cli.common import run

if __name__ == "__main__":
    run(main)
