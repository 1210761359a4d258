"""Say whether the original's programs are where BUILDER_PEER_BIN points, and what is missing."""

import os
import sys
from pathlib import Path

PROGRAMS = ("builder-server", "builder-worker", "builder-client", "builder-inspect")


def missing() -> list[str]:
    """Return what keeps the pairings from being run, empty if nothing does."""
    folder = os.environ.get("BUILDER_PEER_BIN")
    if not folder:
        return ["BUILDER_PEER_BIN is not set: it must name a folder with the original's " + ", ".join(PROGRAMS)]
    return [
        f"{Path(folder) / name} is missing or not executable"
        for name in PROGRAMS
        if not os.access(Path(folder) / name, os.X_OK)
    ]


if __name__ == "__main__":
    for reason in missing():
        print(f"test-interop: {reason}", file=sys.stderr)
    sys.exit(1 if missing() else 0)
