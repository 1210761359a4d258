"""builder-web dies before each change that it makes to the disk: the next start leaves the directory whole."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


def deaths(tmp_path: Path, action: str, every: int) -> list[dict[str, Any]]:
    script = Path(__file__).parent / "dying.py"
    command = [sys.executable, str(script), action, str(every), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("every", [20, pytest.param(1, marks=pytest.mark.long)])
@pytest.mark.parametrize(("action", "before", "after"), [("upload", 1, 2), ("remove", 2, 1)])
def test_whatever_it_dies_before_the_directory_is_whole(
    tmp_path: Path, action: str, before: int, after: int, every: int
) -> None:
    found = deaths(tmp_path, action, every)
    assert [death for death in found if death["faults"] or death["again"]["faults"]] == []
    # all of it, or nothing: and from some moment on all
    counts = [death["builds"] for death in found]
    assert counts == [before] * counts.count(before) + [after] * counts.count(after)
    assert counts[-1] == after
    assert {death["again"]["builds"] for death in found} == {after}
    names = {death["died_before"].partition(" ")[0] for death in found}
    if every == 1:  # it did see them all
        assert (
            names >= {"upload": {"os.link", "os.rename", "fsync", "open"}, "remove": {"os.remove", "os.rmdir"}}[action]
        )
