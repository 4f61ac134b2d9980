"""Print what is installed, and what is slow or missing for lack of something.

ddl-d2 info
"""

from __future__ import annotations

import argparse

from ddl_d2.collect_env import table


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    return argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)


def main(argv: list[str] | None = None) -> int:
    """Print the table; returns the exit code."""
    build_parser().parse_args(argv)
    print(table())
    return 0
