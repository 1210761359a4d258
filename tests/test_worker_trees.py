"""The removal of trees that jobs have made, and of nothing else: mounts and links lead to what is the host's."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder_worker.trees import Cursor, remove_tree


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """A directory with a mode and a file that must stay."""
    path = tmp_path / "host"
    path.mkdir()
    path.chmod(0o755)
    (path / "file").write_text("of the host")
    return path


def _is_whole(host: Path) -> bool:
    return host.stat().st_mode & 0o7777 == 0o755 and (host / "file").read_text() == "of the host"


@pytest.fixture
def mounted(tmp_path: Path, host: Path) -> Iterator[Path]:
    """A tree in which the host's directory is mounted, at "d/m"."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount")
    tree = tmp_path / "tree"
    (tree / "d" / "m").mkdir(parents=True)
    subprocess.run(["mount", "--bind", host, tree / "d" / "m"], check=True)
    try:
        yield tree
    finally:
        subprocess.run(["umount", tree / "d" / "m"], check=True)


def test_what_is_mounted_in_a_tree_is_left_as_it_is(mounted: Path, host: Path) -> None:
    with pytest.raises(OSError, match="another file system is mounted there"):
        remove_tree(mounted)
    assert _is_whole(host)


def test_what_is_mounted_is_no_tree(mounted: Path, host: Path) -> None:
    with pytest.raises(OSError, match="a file system is mounted there"):
        remove_tree(mounted / "d" / "m")
    assert _is_whole(host)


def test_rights_are_given_to_what_is_mounted_nowhere(mounted: Path, host: Path) -> None:
    (mounted / "d").chmod(0)
    with Cursor(mounted) as cursor:
        cursor.unlock(b"d")
        assert (mounted / "d").stat().st_mode & 0o7777 == 0o700
        cursor.down(b"d")
        cursor.unlock(b"m")
    assert _is_whole(host)


def test_rights_are_given_through_no_link(tmp_path: Path, host: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "link").symlink_to(host)
    with Cursor(tmp_path / "tree") as cursor, pytest.raises(OSError, match=r"Not a directory|Too many levels"):
        cursor.unlock(b"link")
    assert _is_whole(host)
    remove_tree(tmp_path / "tree")
    assert _is_whole(host)


def test_the_root_of_the_machine_is_no_tree() -> None:
    with Cursor(Path("/")) as cursor, pytest.raises(OSError, match="a file system is mounted there"):
        cursor.check_not_mounted()
