"""Programs of a system that is not this one: they note how they were called, then play their parts in a shell script."""

from collections.abc import Iterable
from pathlib import Path

NOTE = r"""#!/bin/sh
# Notes its command line, then plays its part, as the state in $FAKE/state and the orders in $FAKE/orders say.
name=${0##*/}
{ printf '%s' "$name"; for word; do printf ' %s' "$word"; done; echo; } >>"$FAKE/calls"
"""


def make_programs(root: Path, names: Iterable[str], parts: str) -> dict[str, str]:
    """Make programs in ``root``, all with the same script, and return the environment in which they are found."""
    for name in ("bin", "state", "orders"):
        (root / name).mkdir()
    for name in names:
        path = root / "bin" / name
        path.write_text(NOTE + parts)
        path.chmod(0o755)
    return {"PATH": f"{root}/bin:/usr/sbin:/usr/bin:/sbin:/bin", "FAKE": str(root)}


def read_calls(root: Path) -> list[str]:
    """Return the command lines so far, in which the directory is called FAKE."""
    path = root / "calls"
    return path.read_text().replace(str(root), "FAKE").splitlines() if path.exists() else []
