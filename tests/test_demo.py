"""`make demo` does what the README promises: a real job, twice, and the same wheel both times."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.long
def test_the_demo(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "demo/demo.py"],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "TMPDIR": str(tmp_path), "UPLOAD": ""},
        capture_output=True,
        timeout=170,
        check=False,
    )
    assert done.returncode == 0, (done.stdout, done.stderr)
    assert b"The two wheels are byte-identical" in done.stdout
