"""The uploads of the recordings, and what is in them."""

from functools import cache
from pathlib import Path

from builder import execution
from builder.model import Artifact, Execution

DATA = Path(__file__).parent / "data"


@cache
def upload(name: str) -> Execution:
    """Return the execution of an upload's body."""
    return execution.decode((DATA / "uploads" / f"{name}.full").read_bytes())


def binary(name: str) -> bytes:
    """Return the main binary of an upload: the one file under bin/."""
    (found,) = (file for file in upload(name).artifacts if file.path.startswith("bin/"))
    return found.content


def debug(name: str) -> Artifact:
    """Return the artifact with the symbols of an upload."""
    return next(file for file in upload(name).artifacts if file.path.endswith(".debug"))
