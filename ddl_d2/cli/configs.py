"""List the names of the configs that come with ddl_d2; `--config-file` takes a name or a file.

ddl-d2 configs
"""

from __future__ import annotations

import argparse

from ddl_d2.config.load import list_configs


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    return argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)


def main(argv: list[str] | None = None) -> int:
    """Print the names, one a line; returns the exit code."""
    build_parser().parse_args(argv)
    print("\n".join(list_configs()))
    return 0
