"""builder-client about builds, against a real server: history, log, result, fetch, cancel and dequeue."""

import hashlib
import json
import sqlite3
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio
from client_harness import assert_one_line
from farm import Server, query, run_client, start_server
from scripted import OUR_WORKER, Taken, ask_job, build, connect, do, lose_worker, schedule, take_job

from builder.messages import Execute
from builder.model import Aborted, Artifact, Exited

FILES = (Artifact(path="bin/tool", content=b"\x7fELF" * 100_000), Artifact(path="empty", content=b""))


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with start_server(tmp_path) as running_server:
        yield running_server


def client(server: Server, *arguments: str, status: int = 0) -> str:
    done = run_client(server, *arguments)
    assert done.returncode == status, (done.stdout, done.stderr)
    if status:
        assert_one_line(done.stderr)
        return done.stderr.decode()
    return done.stdout.decode()


def rows(server: Server, *arguments: str) -> list[Any]:
    return [json.loads(line) for line in client(server, *arguments, "--json").splitlines()]


async def test_the_history(server: Server) -> None:
    await do(server, schedule("a"))
    first, _ = await build(server, artifacts=FILES)
    for artifacts, result in ((FILES, None), ((), Exited(code=1)), ((), Aborted(message="timeout (limit 5 s)"))):
        await do(server, Execute(name="a"))
        await build(server, artifacts=artifacts, result=result)
    await do(server, Execute(name="a"))
    lost = await lose_worker(server)
    await do(server, schedule("b", platform="p2"))
    async with take_job(server, "p2") as taken:
        found = rows(server, "history")
        assert [(each["job"], each["outcome"], each["cause"]) for each in found] == [
            ("b", None, "first"),
            ("a", "lost", "executed"),
            ("a", "aborted", "executed"),
            ("a", "failed", "executed"),
            ("a", "succeeded", "executed"),
            ("a", "succeeded", "first"),
        ]
        assert [each["artifacts_changed"] for each in found] == [None, None, True, True, False, None]
        assert [each["script_changed"] for each in found] == [None, False, False, False, False, None]
        assert (found[0]["uuid"], found[1]["uuid"], found[-1]["uuid"]) == (str(taken.uuid), str(lost), str(first))
        assert found[-2]["previous"] == str(first)
        assert found[-1]["artifacts"] == 2
        assert all(each["waited_ms"] >= 0 for each in found)
        assert [each["outcome"] for each in rows(server, "history", "a", "--failed")] == ["failed"]
        assert [each["job"] for each in rows(server, "history", "--platform", "p2")] == ["b"]
        assert rows(server, "history", "--limit", "2") == found[:2]
        assert rows(server, "history", "--since", "2999-01-01") == []
        assert rows(server, "history", "--since", found[2]["started"]) == found[:3]
        assert rows(server, "history", "--since", "1h") == found
        assert b"or how long ago, as 12h or 2d" in run_client(server, "history", "--since", "yesterday").stderr
        assert "unknown job" in client(server, "history", "aa", status=3)
        assert client(server, "history", "aa", "--failed") == "History: no builds\n"
        table = client(server, "history")
        assert "lost: worker lost" in table
        assert "unchanged" in table
        assert "aborted: timeout (limit 5 s)" in table
        assert "executed by 127.0.0.1:" in table


async def test_a_worker_is_called_as_its_operator_calls_it(server: Server) -> None:
    await do(server, schedule("a"), schedule("b", platform="classic"))
    async with connect(server, OUR_WORKER) as ours, take_job(server, "classic") as taken:
        given = await ask_job(ours)
        await given.finish(ours)
        await taken.finish()
    a, b = sorted(rows(server, "history"), key=lambda each: str(each["job"]))
    assert (a["worker_name"], b["worker_name"]) == ("w", None)
    table = {line.split()[1]: line.split()[-2] for line in client(server, "history").splitlines()[2:]}
    assert table == {"a": "w", "b": b["worker"]}
    assert f" w at {a['worker']}\n" in client(server, "result", a["uuid"])


async def test_a_template_is_told_from_a_script(server: Server) -> None:
    """What has changed of an orb-build job is the template of its platform, the package, or both."""
    template = server.config_dir / "orb-build.template.p1"
    template.write_bytes(b"#!/bin/sh\necho %%OPAM_PACKAGE%%\n")
    client(server, "orb-build", "orb", "one")
    await do(server, schedule("plain"))  # which p1 needs to be known
    found = []
    for new_template, package in ((b"", ""), (b"# new\n", ""), (b"", "two"), (b"# newer\n", "three"), (b"", "")):
        if new_template:
            template.write_bytes(template.read_bytes() + new_template)
        if package:
            client(server, "edit", "orb", "--opam-package", package)
        await do(server, Execute(name="orb"))
        await build(server)
        (newest,) = rows(server, "history", "orb", "--limit", "1")
        found.append((newest["script_changed"], newest["template_changed"], newest["artifacts_changed"]))
    assert found == [
        (None, None, None),
        (False, True, False),
        (True, False, False),
        (True, True, False),
        (False, False, False),
    ]
    words = [line.split(":")[1].strip() for line in result_lines(server, "orb") if line.startswith("changed:")]
    assert words == ["unchanged", "script, template", "script", "template"]


def result_lines(server: Server, job: str) -> list[str]:
    uuids = [each["uuid"] for each in rows(server, "history", job)]
    return [line for uuid in uuids for line in client(server, "result", uuid).splitlines()]


async def test_pages_of_the_history(server: Server) -> None:
    """Builds of the same millisecond, and runs that were left out then, each come once."""
    moment = time.time_ns() // 1_000_000  # of long ago the server forgets what was left out
    with sqlite3.connect(server.data_dir / "builder.sqlite3") as connection:
        for number in range(250):
            connection.execute(
                "insert into build (uuid, job_id, name, platform, script, state, losses, started, outcome) "
                "values (?, 1, 'a', 'p1', '', 'finished', 0, ?, 'failed')",
                [f"{number:08x}-0000-0000-0000-000000000000", moment],
            )
            connection.execute(
                "insert into skipped (name, platform, due, cause, reason) values ('a', 'p1', ?, 'due', 'still running')",
                [moment],
            )
    found = rows(server, "history", "--limit", "1000")
    assert len({each["uuid"] for each in found}) == 251
    assert [each["outcome"] for each in found] == ["failed"] * 250 + ["skipped"] * 250
    assert "skipped, still running" in client(server, "history", "--limit", "300")


async def test_a_console_that_was_removed_is_no_empty_one(server: Server) -> None:
    await do(server, schedule("a"))
    uuid, _ = await build(server, lines=[b"one"])
    (server.data_dir / "a" / str(uuid) / "console").unlink()
    assert f"the server has no console of {uuid} any more" in client(server, "log", str(uuid), status=3)


async def test_a_log_and_its_end(server: Server) -> None:
    await do(server, schedule("a"))
    lines = [b"line %d" % number for number in range(100)] + [b"\xff\x1b[2J", b""]
    uuid, _ = await build(server, lines=lines)
    begin = uuid.hex[:12]
    assert run_client(server, "log", begin, "--raw").stdout == b"".join(line + b"\n" for line in lines)
    assert run_client(server, "log", begin, "--raw", "--tail", "2").stdout == b"\xff\x1b[2J\n\n"
    assert run_client(server, "log", begin, "--raw", "-n", "0").stdout == b""
    assert run_client(server, "log", begin, "--raw", "--grep", "e 9[89]$").stdout == b"line 98\nline 99\n"
    assert run_client(server, "log", begin, "--raw", "--grep", "line", "-n", "1").stdout == b"line 99\n"
    assert run_client(server, "log", begin, "--since", "1h").stdout == b""
    (last,) = rows(server, "log", begin, "--grep", "^line 7$")
    assert (last["line"], last["uuid"]) == ("line 7", str(uuid))
    assert "is no uuid" in run_client(server, "log", "xyz").stderr.decode()
    assert "no build has a uuid that begins with" in client(server, "log", "0" * 32, status=3)


async def test_a_running_build_is_followed(server: Server) -> None:
    await do(server, schedule("a"))
    found: list[bytes] = []
    async with take_job(server) as taken, trio.open_nursery() as nursery:
        await taken.say(b"one", b"two")
        uuid = str(taken.uuid)
        while b"two" not in (found := run_client(server, "log", uuid, "--raw").stdout.splitlines()):
            pass
        assert found == [b"one", b"two"]

        async def follow(taken: Taken) -> None:
            done = await trio.to_thread.run_sync(
                lambda: run_client(server, "log", str(taken.uuid), "--raw", "-f", "-n", "1")
            )
            found[:] = done.stdout.splitlines()

        nursery.start_soon(follow, taken)
        await taken.say(b"three")
        await trio.lowlevel.checkpoint()
        await taken.finish()
    assert found[-1] == b"three"


async def test_the_result_and_its_artifacts(server: Server, tmp_path: Path) -> None:
    await do(server, schedule("a"))
    uuid, _ = await build(server, artifacts=FILES)
    head, *artifacts = rows(server, "result", uuid.hex[:8])
    assert (head["type"], head["has_artifacts"], head["outcome"], head["artifacts"]) == ("build", True, "succeeded", 2)
    assert artifacts == [
        {
            "type": "artifact",
            "path": file.path,
            "size": len(file.content),
            "sha256": hashlib.sha256(file.content).hexdigest(),
        }
        for file in FILES
    ]
    text = client(server, "result", str(uuid), "--limit", "1")
    assert "succeeded" in text
    assert "bin/tool" in text
    assert "empty" not in text

    target = tmp_path / "fetched"
    assert client(server, "fetch", str(uuid), str(target)) == f"Wrote 2 of 2 artifacts to {target}\n"
    assert files_below(target) == {file.path: file.content for file in FILES}
    done = run_client(server, "fetch", str(uuid), str(target))
    assert done.returncode == 1
    assert b"a file of that name exists" in done.stderr
    assert rows(server, "fetch", str(uuid), str(target), "--force") == [
        {"uuid": str(uuid), "written": 2, "not_written": 0, "provenance": f"{uuid}.provenance.json"}
    ]
    server.full("a", uuid).unlink()
    assert "has no artifacts" in client(server, "fetch", str(uuid), str(target), status=3)


async def test_a_build_that_runs_has_no_artifacts_yet(server: Server, tmp_path: Path) -> None:
    await do(server, schedule("a"))
    async with take_job(server) as taken:
        assert "it runs" in client(server, "fetch", str(taken.uuid), str(tmp_path / "fetched"), status=3)
    assert not (tmp_path / "fetched").exists()


def files_below(target: Path) -> dict[str, bytes]:
    """Return the artifacts; what is signed of the build lies beside them."""
    found = (path for path in target.rglob("*") if path.is_file() and not path.name.endswith(".provenance.json"))
    return {path.relative_to(target).as_posix(): path.read_bytes() for path in found}


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (
            "update artifact set sha256 = zeroblob(32) where path = cast('empty' as blob)",
            "not written: empty: 0 bytes with",
        ),
        (
            "update artifact set size = 7 where path = cast('empty' as blob)",
            "the server has recorded 7 bytes with the SHA",
        ),
        ("delete from artifact where path = cast('empty' as blob)", "the server has recorded nothing of that name"),
        (
            "insert into artifact select build, cast('gone' as blob), 1, sha256 from artifact where size = 0",
            "not written: gone: it did not come, though",
        ),
    ],
)
async def test_what_is_not_as_it_was_recorded_is_not_written(
    server: Server, tmp_path: Path, damage: str, said: str
) -> None:
    await do(server, schedule("a"))
    uuid, _ = await build(server, artifacts=FILES)
    with sqlite3.connect(server.data_dir / "builder.sqlite3") as connection:
        connection.execute(damage)
    target = tmp_path / "fetched"
    done = run_client(server, "fetch", str(uuid), str(target))
    assert done.returncode == 1
    assert said in done.stderr.decode()
    assert "fetch it again; if it still differs" in done.stderr.decode()
    assert "gone" not in files_below(target)
    assert ("empty" in files_below(target)) == ("gone" in said)
    assert files_below(target)["bin/tool"] == FILES[0].content
    assert b"1 of the artifacts could not be written" in done.stderr


async def test_damage_on_the_servers_disk_is_seen(server: Server, tmp_path: Path) -> None:
    await do(server, schedule("a"))
    uuid, _ = await build(server, artifacts=FILES)
    full = server.full("a", uuid)
    full.write_bytes(full.read_bytes().replace(b"\x7fELF" * 100_000, b"\x7fELF" * 99_999 + b"\x7fElF"))
    target = tmp_path / "fetched"
    done = run_client(server, "fetch", str(uuid), str(target))
    assert done.returncode == 1
    assert files_below(target) == {"empty": b""}


async def test_a_fetch_that_is_cut_off_leaves_nothing_that_is_not_whole(server: Server, tmp_path: Path) -> None:
    await do(server, schedule("a"))
    uuid, _ = await build(server, artifacts=FILES)
    full = server.full("a", uuid)
    full.write_bytes(full.read_bytes()[:200_000])
    for options in ((), ("--force",)):
        target = tmp_path / f"fetched{len(options)}"
        assert run_client(server, "fetch", str(uuid), str(target), *options).returncode != 0
        assert files_below(target) == {}


async def test_a_build_without_hashes_is_not_checked(server: Server, tmp_path: Path) -> None:
    """Servers of before have recorded none."""
    await do(server, schedule("a"))
    uuid, _ = await build(server, artifacts=FILES)
    with sqlite3.connect(server.data_dir / "builder.sqlite3") as connection:
        connection.execute("delete from artifact")
        connection.execute("update build set artifacts = null, main_hash = null")
    done = run_client(server, "fetch", str(uuid), str(tmp_path / "fetched"))
    assert (done.returncode, len(files_below(tmp_path / "fetched"))) == (0, 2)
    assert b"what comes is not checked" in done.stderr


async def test_a_fetch_leads_nowhere_else(server: Server, tmp_path: Path) -> None:
    await do(server, schedule("a"))
    uuid, _ = await build(server, artifacts=[Artifact(path="way/out", content=b"x")])
    target = tmp_path / "fetched"
    target.mkdir()
    (target / "way").symlink_to(tmp_path)
    done = run_client(server, "fetch", str(uuid), str(target))
    assert done.returncode == 1
    assert not (tmp_path / "out").exists()


async def test_cancel_and_dequeue(server: Server) -> None:
    await do(server, schedule("a"), schedule("b"))
    async with take_job(server) as taken:
        (cancelled,) = rows(server, "cancel", "a")
        assert cancelled == {"uuid": str(taken.uuid), "job": "a", "platform": "p1", "by": None}
    shown = client(server, "cancel", "a", status=3)
    assert "nothing runs that is called a or has a uuid that begins so; 'next a' says when it runs" in shown
    assert "; it is queued: 'dequeue b' takes it from there" in client(server, "cancel", "b", status=3)
    assert client(server, "dequeue", "b") == "No longer queued on p1\n"
    assert client(server, "dequeue", "b", status=3) == "builder-client: b is in no queue; 'queue' shows what waits\n"
    (ended,) = rows(server, "history")
    assert ended["outcome"] == "aborted"
    assert ended["ended_by"].startswith("127.0.0.1:")


async def test_a_begin_that_several_builds_have(server: Server) -> None:
    await do(server, schedule("a"))
    uuids = []
    for _ in range(17):  # two of them begin alike
        uuids.append((await build(server))[0].hex)
        await do(server, Execute(name="a"))
    digit = max("0123456789abcdef", key=lambda digit: sum(uuid.startswith(digit) for uuid in uuids))
    assert f"{digit} is ambiguous: " in client(server, "result", digit, status=3)
    assert query(server.data_dir, "select count(*) from build") == [(17,)]
