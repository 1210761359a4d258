"""Fixtures of the pairings with the original's programs."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from check_peer import missing
from peers import Farm


@pytest.fixture(autouse=True)
def _peer_programs() -> None:
    if reasons := missing():
        pytest.fail("; ".join(reasons))


@pytest.fixture
def make_farm(tmp_path: Path) -> Iterator[Callable[..., Farm]]:
    """Return a function that makes a farm with a server of some kind; all is stopped at the end."""
    with contextlib.ExitStack() as stack:

        def make(server_kind: str, **options: str) -> Farm:
            root = tmp_path / f"farm-{len(list(tmp_path.iterdir()))}"
            root.mkdir()
            farm = Farm(root, server_kind, **options)  # type: ignore[arg-type]
            stack.callback(farm.close)
            farm.start_server()
            return farm

        yield make
        for log in sorted(tmp_path.glob("*/*.log")):
            print(f"--- {log}\n{log.read_text(errors='replace')[-3000:]}")
