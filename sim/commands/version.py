"""``stmoe version``."""

import stmoe

NAME = "version"


def run() -> None:
    """Print the version."""
    print(stmoe.__version__)
