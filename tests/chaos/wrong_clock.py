"""Has builder-server's wall clock wrong by the seconds that stand in a file: ``CHAOS_CLOCK`` names it."""

import os
from pathlib import Path

from builder.model import Instant
from builder_server import server


def begin() -> None:
    """Set it wrong in this process."""
    clock, file = server.wall_clock, Path(os.environ["CHAOS_CLOCK"])

    def wrong_clock() -> Instant:
        return Instant(clock().ms + 1000 * int(file.read_text() or "0"))

    assert server.serve.__kwdefaults__
    server.serve.__kwdefaults__["now"] = wrong_clock
