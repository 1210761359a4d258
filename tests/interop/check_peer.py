"""Say whether the original's programs are where BUILDER_PEER_BIN and BUILDER_WEB_PEER_BIN point, and what is missing."""

import os
import sys
from pathlib import Path

import pytest

FARM = "BUILDER_PEER_BIN"
WEB = "BUILDER_WEB_PEER_BIN"
PROGRAMS = {
    FARM: ("builder-server", "builder-worker", "builder-client", "builder-inspect"),
    WEB: ("builder-web", "builder-db"),
}


def missing(variable: str) -> list[str]:
    """Return what keeps the tests with those programs from being run, empty if nothing does."""
    folder = os.environ.get(variable)
    if not folder:
        return [f"{variable} is not set: it must name a folder with the original's {', '.join(PROGRAMS[variable])}"]
    return [
        f"{Path(folder) / name} is missing or not executable"
        for name in PROGRAMS[variable]
        if not os.access(Path(folder) / name, os.X_OK)
    ]


def require(variable: str) -> None:
    """Skip a test whose programs nobody named; fail it where they are not what they were said to be."""
    if reasons := missing(variable):
        (pytest.fail if os.environ.get(variable) else pytest.skip)("; ".join(reasons))


def main() -> int:
    """Tell what is missing. What is not named is skipped, but something must be there to be run."""
    named = [variable for variable in PROGRAMS if os.environ.get(variable)]
    for variable in PROGRAMS:
        for reason in missing(variable):
            print(f"test-interop: {reason}", file=sys.stderr)
    return 1 if not named or any(missing(variable) for variable in named) else 0


if __name__ == "__main__":
    sys.exit(main())
