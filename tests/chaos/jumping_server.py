"""builder-server whose wall clock is wrong by the seconds that stand in a file: ``CHAOS_CLOCK`` names it."""

import os
from pathlib import Path

from builder.model import Instant
from builder_server import __main__, server

_clock = server.wall_clock
_file = Path(os.environ["CHAOS_CLOCK"])


def wrong_clock() -> Instant:
    """Return what the clock says."""
    return Instant(_clock().ms + 1000 * int(_file.read_text() or "0"))


if __name__ == "__main__":
    assert server.serve.__kwdefaults__
    server.serve.__kwdefaults__["now"] = wrong_clock
    __main__.main()
