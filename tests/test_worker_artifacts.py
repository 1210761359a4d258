"""What is collected, from directories as hostile as a job can make them."""

import os
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from worker_program import UUID_1

from builder.execution import ArtifactData, ArtifactStart, FinishedHead, FinishedReader, finished_head
from builder.model import MAX_PATH_BYTES, Exited, text
from builder_worker import artifacts
from builder_worker.artifacts import Collection, Rules, TooMuchLeft, collect
from builder_worker.trees import TreeChanged, remove_tree

SCRIPT = ".builder-script"

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of other users")
NOBODY = 65534


def _collect(work: Path, **rules: object) -> Collection:
    return collect(work, script_name=SCRIPT, rules=Rules(**rules))  # type: ignore[arg-type]


def _names(collection: Collection) -> list[bytes]:
    return [file.path for file in collection.files]


def _read(collection: Collection) -> dict[str, bytes]:
    """Send the collection through a job finished, as the server reads it."""
    reader = FinishedReader()
    head = finished_head(FinishedHead(uuid=UUID_1, result=Exited(code=0)), collection.length)
    contents: dict[str, bytes] = {}
    path = ""
    for data in (head, *collection.chunks()):
        for event in reader.feed(data):
            match event:
                case ArtifactStart():
                    path = event.path
                    contents[path] = b""
                case ArtifactData():
                    contents[path] += event.data
    reader.finish()
    return contents


def test_an_empty_directory_gives_an_empty_list(tmp_path: Path) -> None:
    collection = _collect(tmp_path)
    assert collection.summary() == "0 artifacts, 0 bytes"
    assert collection.length == 0
    assert list(collection.chunks()) == []


def test_files_are_read_in_the_order_of_their_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for name in ("a/x", "a-b", "a0", "Z", "é"):
        (tmp_path / name).write_text(name)
    (tmp_path / "empty").touch()
    contents = _read(_collect(tmp_path))
    assert list(contents) == ["Z", "a-b", "a/x", "a0", "empty", "é"]
    assert contents == {name: b"" if name == "empty" else name.encode() for name in contents}


def test_large_files_come_in_pieces(tmp_path: Path) -> None:
    content = os.urandom(3 * artifacts.CHUNK + 5)
    (tmp_path / "large").write_bytes(content)
    (tmp_path / "small").write_bytes(b"s")
    collection = _collect(tmp_path)
    assert max(map(len, collection.chunks())) < 3 * artifacts.CHUNK
    assert _read(collection) == {"large": content, "small": b"s"}


def test_the_script_and_dotfiles_are_left_out_silently(tmp_path: Path) -> None:
    (tmp_path / ".d" / "e").mkdir(parents=True)
    (tmp_path / "sub").mkdir()
    for name in (SCRIPT, ".f", ".d/e/f", f"sub/{SCRIPT}", "sub/f"):
        (tmp_path / name).touch()
    assert _names(_collect(tmp_path)) == [b"sub/f"]
    assert _collect(tmp_path).remarks == ()
    with_dotfiles = _collect(tmp_path, dotfiles=True)
    assert _names(with_dotfiles) == [b".d/e/f", b".f", b"sub/.builder-script", b"sub/f"]


def test_what_is_no_file_is_left_out_and_named(tmp_path: Path) -> None:
    (tmp_path / "secret").symlink_to("/etc/shadow")
    (tmp_path / "directory").symlink_to("/etc")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "file").write_bytes(b"x")
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.fsencode(tmp_path / "socket"))
        collection = _collect(tmp_path)
    assert _read(collection) == {"file": b"x"}
    assert collection.remarks == (
        "left out dangling: symbolic link",
        "left out directory: symbolic link",
        "left out fifo: named pipe",
        "left out secret: symbolic link",
        "left out socket: socket",
    )


@needs_root
def test_devices_are_not_opened(tmp_path: Path) -> None:
    os.mknod(tmp_path / "zero", 0o20666, os.makedev(1, 5))
    collection = _collect(tmp_path)
    assert collection.files == ()
    assert collection.remarks == ("left out zero: character device",)


@needs_root
def test_a_foreign_file_that_was_linked_in_is_left_out(tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    secret = tmp_path / "secret"
    secret.write_bytes(b"s3cret")
    os.chown(secret, 12345, 12345)
    os.link(secret, work / "linked")
    (work / "own").write_bytes(b"x")
    os.link(work / "own", work / "own2")
    collection = _collect(work)
    assert _read(collection) == {"own": b"x", "own2": b"x"}
    assert collection.remarks == ("left out linked: hard link to a file of another user",)


@needs_root
def test_all_users_of_a_job_are_the_job(tmp_path: Path) -> None:
    """As root of its namespace it gives its files to others of its users, and the directory too."""
    for name, owner in (("first", 70000), ("last", 70009), ("before", 69999), ("behind", 70010)):
        (tmp_path / name).write_bytes(b"x")
        os.link(tmp_path / name, tmp_path / f"{name}2")
        os.chown(tmp_path / name, owner, 12345)
    os.chown(tmp_path, 69999, 69999)
    collection = collect(tmp_path, script_name=".script", rules=Rules(), owners=range(70000, 70010))
    assert _names(collection) == [b"first", b"first2", b"last", b"last2"]


def test_what_can_not_be_read_is_left_out_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "closed").mkdir(mode=0)
    (tmp_path / "file").touch(mode=0)
    (tmp_path / "open").touch()
    user = os.geteuid()
    if user == 0:  # who can read everything
        tmp_path.chmod(0o755)
        monkeypatch.chdir(tmp_path)  # what is above is closed to others
        os.seteuid(NOBODY)
    try:
        collection = _collect(Path() if user == 0 else tmp_path)
    finally:
        os.seteuid(user)
    assert _names(collection) == [b"open"]
    assert collection.remarks == ("left out closed: Permission denied", "left out file: Permission denied")


def test_names_may_be_any_bytes_and_are_shown_escaped(tmp_path: Path) -> None:
    root = os.fsencode(tmp_path)
    for name in (b"new\nline", b"\xff\xfe", b"\x1b[31m"):
        Path(os.fsdecode(root + b"/" + name)).write_bytes(b"x")
    (tmp_path / "\x1b[2J\n").symlink_to("/")
    collection = _collect(tmp_path)
    assert list(_read(collection)) == [text(name) for name in (b"\x1b[31m", b"new\nline", b"\xff\xfe")]
    assert collection.remarks == ("left out \\x1b[2J\\n: symbolic link",)


def _make_deep(root: Path, levels: int, name: str) -> None:
    """Make nested directories with a file in each, without ever using a long path."""
    here = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(levels):
        os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=here))
        os.mkdir(name, dir_fd=here)
        below = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)


def test_3000_nested_directories_are_walked_up_to_the_longest_path(tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    try:
        _make_deep(work, 3000, "dd")
        collection = _collect(work)
        contents = _read(collection)
    finally:
        remove_tree(work)  # pytest could not
    longest = max(map(len, _names(collection)))
    assert MAX_PATH_BYTES - 3 <= longest <= MAX_PATH_BYTES
    assert len(contents) == len(collection.files) > 1300
    assert len(collection.remarks) <= 3  # the first ones that are too long; what is below is not visited
    assert all("it has more than 4095 bytes" in remark for remark in collection.remarks)
    assert not work.exists()


def test_a_sparse_file_is_stopped_by_the_limit(tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(TooMuchLeft, match=r"more than the 953\.7 MiB allowed"):
        _collect(tmp_path, max_bytes=10**9)
    with pytest.raises(TooMuchLeft, match=r"more than the 1 TiB allowed"):
        _collect(tmp_path)


def test_too_many_artifacts_are_an_error(tmp_path: Path) -> None:
    for number in range(4):
        (tmp_path / str(number)).touch()
    assert len(_collect(tmp_path, max_artifacts=4).files) == 4
    with pytest.raises(TooMuchLeft, match="more than the 3 artifacts allowed"):
        _collect(tmp_path, max_artifacts=3)


def test_too_many_entries_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifacts, "MAX_ENTRIES", 10)
    for number in range(11):
        (tmp_path / f".{number}").mkdir()
    with pytest.raises(TooMuchLeft, match="more than 10 files and directories"):
        _collect(tmp_path)


def test_too_many_bytes_of_names_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifacts, "MAX_NAMES", 1000)
    for number in range(5):
        (tmp_path / f"{number:0250}").mkdir()
    with pytest.raises(TooMuchLeft, match="names of the files"):
        _collect(tmp_path)


def test_thousands_of_links_give_a_few_lines(tmp_path: Path) -> None:
    for number in range(500):
        (tmp_path / f"link{number}").symlink_to("/")
    remarks = _collect(tmp_path).remarks
    assert len(remarks) == artifacts.MAX_REPORTED + 1
    assert remarks[-1] == "left out 400 more"


def _append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def _replace(path: Path) -> None:
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content)


def _touch(path: Path) -> None:
    os.utime(path, ns=(1, 1))


def _truncate(path: Path) -> None:
    os.truncate(path, 10)


def _link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def _remove(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("change", [_append, _replace, _touch, _truncate, _link, _remove])
def test_a_file_that_changes_is_an_error_before_the_end_of_the_frame(
    tmp_path: Path, change: Callable[[Path], None]
) -> None:
    """Even when the change comes in the middle, the bytes that were sent are never the whole."""
    content = b"x" * (3 * artifacts.CHUNK)
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(content)
    collection = _collect(tmp_path)
    sent = 0
    chunks = collection.chunks()
    sent += len(next(chunks))
    change(tmp_path / "b")
    rest: list[bytes] = []
    with pytest.raises((TreeChanged, OSError)):
        rest.extend(chunks)
    assert sent + sum(map(len, rest)) < collection.length


def test_a_directory_that_becomes_a_link_is_not_followed(tmp_path: Path) -> None:
    work, other = tmp_path / "work", tmp_path / "other"
    for directory in (work / "sub", other):
        directory.mkdir(parents=True)
        (directory / "file").write_bytes(b"x")
    collection = _collect(work)
    (work / "sub").rename(work / "moved")
    (work / "sub").symlink_to(other)
    with pytest.raises(OSError, match=r"Not a directory|Too many levels"):
        list(collection.chunks())


def test_a_work_directory_that_becomes_a_link_is_not_followed(tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.symlink_to("/etc")
    with pytest.raises(OSError, match=r"Not a directory|Too many levels"):
        _collect(work)


def test_what_is_mounted_is_neither_read_nor_removed(tmp_path: Path) -> None:
    """A bind mount has the device number of its source, so that alone does not tell."""
    work, other = tmp_path / "work", tmp_path / "other"
    (work / "sub" / "mounted").mkdir(parents=True)
    other.mkdir()
    (other / "kept").touch()
    done = subprocess.run(["mount", "--bind", other, work / "sub" / "mounted"], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"nothing can be mounted here: {done.stderr.decode()}")
    try:
        collection = _collect(work)
        with pytest.raises(OSError, match="another file system"):
            remove_tree(work)
    finally:
        subprocess.run(["umount", work / "sub" / "mounted"], check=True)
    assert collection.files == ()
    assert collection.remarks == ("left out sub/mounted: another file system is mounted there",)
    assert (other / "kept").exists()


def test_trees_are_removed_without_following_links(tmp_path: Path) -> None:
    work, other = tmp_path / "work", tmp_path / "other"
    (work / "a" / "closed").mkdir(parents=True)
    (work / "a" / "closed" / "file").touch()
    (work / "a" / "closed").chmod(0)
    other.mkdir()
    (other / "kept").touch()
    (work / "link").symlink_to(other)
    remove_tree(work)
    assert not work.exists()
    assert (other / "kept").exists()


_PATHS = st.lists(
    st.lists(st.sampled_from([b"a", b"b-", b"b", b"\xff", b"c\n"]), min_size=1, max_size=3).map(b"/".join), max_size=8
)


@given(paths=_PATHS)
def test_any_tree_arrives_whole(paths: list[bytes], tmp_path_factory: pytest.TempPathFactory) -> None:
    work = tmp_path_factory.mktemp("tree")
    expected = {}
    for path in paths:
        file = Path(os.fsdecode(os.fsencode(work) + b"/" + path))
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(path)
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            continue
        expected[path] = path
    contents = _read(_collect(work))
    assert list(contents) == [text(path) for path in sorted(expected)]
    assert list(contents.values()) == [expected[path] for path in sorted(expected)]
