"""fetch brings what the server has signed of a build, and builder-inspect verify holds artifacts against it."""

import base64
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import attrs
import pytest
from client_harness import assert_one_line, run_inspect
from farm import Server, run_client, start_server
from scripted import OURS, build, connect, do, lose_worker, schedule, take_job

from builder import execution
from builder.extension.provenance import ProvenanceShown, ShowProvenance
from builder.messages import Success
from builder.model import Artifact, Execution, Exited, Instant, ScriptJob, raw
from builder.provenance.envelope import Envelope
from builder.provenance.keys import SigningKey, public_text
from builder.provenance.statement import Attested, Subject, Subjects, encode

FILES = (
    Artifact(path="bin/tool", content=b"\x7fELF" * 1000),
    Artifact(path="empty", content=b""),
    Artifact(path="caf\udce9", content=b"x"),
)
NOW = Instant(1_900_000_000_000)
KEY = SigningKey.make(NOW)
SCRIPT = b"#!/bin/sh\n"
U = UUID("323b2a40-25d1-4f8e-90af-a4e2b9fd7f22")
FACTS = Attested(
    builder_id="urn:x",
    uuid=U,
    job="hello",
    platform="p1",
    script_sha256=hashlib.sha256(SCRIPT).digest(),
    started=NOW,
    finished=Instant(NOW.ms + 1000),
    signed=Instant(NOW.ms + 2000),
    result=Exited(code=0),
)
RECORD = Execution(
    job=ScriptJob(name="hello", platform="p1", script=SCRIPT),
    uuid=U,
    console=(),
    started=FACTS.started,
    finished=FACTS.finished,
    result=FACTS.result,
    artifacts=FILES,
)


def statement(artifacts: tuple[Artifact, ...] = FILES, **changes: Any) -> bytes:
    subjects = Subjects()
    ordered = sorted(artifacts, key=lambda each: raw(each.path))
    subjects.add([Subject(path=each.path, sha256=hashlib.sha256(each.content).digest()) for each in ordered])
    return encode(attrs.evolve(FACTS, **changes), subjects)


@pytest.fixture
def fetched(tmp_path: Path) -> Path:
    """A directory with artifacts and their provenance; the keys lie beside it."""
    target = tmp_path / "fetched"
    for each in FILES:
        path = target / os.fsdecode(raw(each.path))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(each.content)
    (target / "x.provenance.json").write_bytes(Envelope.sign(statement(), [KEY]).encode())
    (tmp_path / "pub").write_text(public_text([KEY.public]))
    return target


def verify(fetched: Path, *more: str | Path, status: int = 0, key: str = "pub") -> str:
    """Verify, and return what is said: on standard error if something is wrong, with what was found before it."""
    envelope = fetched / "x.provenance.json"
    done = run_inspect("verify", str(envelope), *map(str, more), "--key", str(fetched.parent / key))
    said = done.stdout.decode() + done.stderr.decode()
    assert done.returncode == status, said
    if status:
        assert_one_line(done.stderr, b"builder-inspect")
    return said


def said_of(fetched: Path, *arguments: Path) -> tuple[int, str]:
    """Verify with the public key, and return the exit status and what is said last."""
    done = run_inspect("verify", *map(str, arguments), "--key", str(fetched.parent / "pub"))
    if done.returncode > 1:
        assert_one_line(done.stderr, b"builder-inspect")
    return done.returncode, (done.stdout + done.stderr).decode().splitlines()[-1]


async def test_what_is_fetched_is_verified(tmp_path: Path) -> None:
    async with start_server(tmp_path) as server:
        await do(server, schedule("a"))
        uuid, _ = await build(server, artifacts=FILES)
        target = tmp_path / "fetched"
        done = run_client(server, "fetch", str(uuid), str(target), "--json")
        assert json.loads(done.stdout) == {
            "uuid": str(uuid),
            "written": 3,
            "not_written": 0,
            "provenance": f"{uuid}.provenance.json",
        }
        Path(tmp_path, "pub").write_bytes(keys_of(server))
        envelope = target / f"{uuid}.provenance.json"
        done = run_inspect("verify", str(envelope), "--key", str(tmp_path / "pub"))
        assert (done.returncode, done.stderr) == (0, b"")
        assert b"3 artifacts, all as they were signed" in done.stdout
        beside = server.full("a", uuid).with_name("provenance.json")
        for arguments in ([beside], [envelope, server.full("a", uuid)]):
            done = run_inspect("verify", *map(str, arguments), "--key", str(tmp_path / "pub"), "--json")
            found = json.loads(done.stdout)
            assert (done.returncode, found["as_signed"], found["uuid"]) == (0, True, str(uuid))


def keys_of(server: Server) -> bytes:
    from builder_server.keyring import Keyring

    return public_text(Keyring(server.data_dir).public(NOW)).encode()


async def test_a_build_that_is_not_signed_has_no_provenance(tmp_path: Path) -> None:
    async with start_server(tmp_path) as server, connect(server, OURS) as client:
        await do(server, schedule("a"))
        lost = await lose_worker(server)
        async with take_job(server) as taken:
            for uuid in (lost, taken.uuid):
                assert await client.request(ShowProvenance(uuid=uuid)) == [ProvenanceShown(envelope=None), Success()]
        assert "there is no build" in str(await client.request(ShowProvenance(uuid=U)))


async def test_keys_that_can_t_be_used_hold_up_no_fetch(tmp_path: Path) -> None:
    async with start_server(tmp_path) as server:
        (server.data_dir / "builder.keys").touch()
        await do(server, schedule("a"))
        uuid, _ = await build(server, artifacts=FILES)
        done = run_client(server, "fetch", str(uuid), str(tmp_path / "fetched"))
        assert done.returncode == 0
        assert f"what the server has signed is not written: {uuid} is not signed yet" in done.stderr.decode()
        assert b"Wrote 3 of 3 artifacts" in done.stdout


# --- artifacts -----------------------------------------------------------------------------------------------------


def test_each_artifact_that_is_not_as_it_was_is_named(fetched: Path) -> None:
    (fetched / "bin/tool").write_bytes(b"\x7fELF" * 999 + b"\x7fElF")
    (fetched / "empty").unlink()
    (fetched / "bin/more").touch()
    said = verify(fetched, status=1)
    assert "differs    bin/tool\n" in said
    assert "missing    empty\n" in said
    assert "extra      bin/more\n" in said


@pytest.mark.parametrize("what", ["symlink", "fifo", "link to a folder"])
def test_what_is_no_file_is_no_artifact(fetched: Path, what: str) -> None:
    (fetched / "empty").unlink()
    match what:
        case "symlink":
            (fetched.parent / "elsewhere").touch()
            (fetched / "empty").symlink_to("../elsewhere")
        case "fifo":
            os.mkfifo(fetched / "empty")
        case _:
            (fetched / "empty").symlink_to("bin", target_is_directory=True)
    assert "differs    empty\n" in verify(fetched, status=1)


def test_an_execution_is_held_against_what_was_signed(fetched: Path) -> None:
    full = fetched.parent / "full"
    full.write_bytes(execution.encode(RECORD))
    assert "all as they were signed" in verify(fetched, full)


def test_a_directory_with_provenance_is_enough(fetched: Path) -> None:
    assert said_of(fetched, fetched) == (0, "artifacts  3 artifacts, all as they were signed")


def test_a_directory_with_none_or_several(fetched: Path) -> None:
    envelope, copy = fetched / "x.provenance.json", fetched / "y.provenance.json"
    copy.write_bytes(envelope.read_bytes())
    status, said = said_of(fetched, fetched)
    assert (status, "there is the provenance of 2 builds in" in said) == (2, True)
    assert said.endswith("name one of the files, such as x.provenance.json")
    status, said = said_of(fetched, envelope, copy)  # as the shell makes it of a *
    assert (status, "y.provenance.json is provenance, too" in said) == (2, True)
    envelope.unlink()
    copy.unlink()
    status, said = said_of(fetched, fetched)
    assert (status, "there is no provenance in" in said) == (2, True)


@pytest.mark.parametrize("named", ["directory", "envelope", "both"])
def test_the_directory_of_a_build_on_a_server(fetched: Path, named: str) -> None:
    directory = fetched.parent / "build"
    directory.mkdir()
    (directory / "full").write_bytes(execution.encode(RECORD))
    (directory / "console").write_bytes(b"")
    envelope = (fetched / "x.provenance.json").rename(directory / "provenance.json")
    arguments = {"directory": [directory], "envelope": [envelope], "both": [envelope, directory]}[named]
    assert said_of(fetched, *arguments) == (0, "artifacts  3 artifacts, all as they were signed")
    (directory / "planted").write_bytes(b"")  # which the record beside it must not hide
    assert said_of(fetched, *arguments) == (1, f"builder-inspect: {directory} is not what was signed")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"uuid": UUID(int=1)}, "record     not the one that was signed: uuid and job"),
        ({"job": attrs.evolve(RECORD.job, name="b")}, "record     not the one that was signed: uuid and job"),
        ({"job": attrs.evolve(RECORD.job, platform="p2")}, "record     not the one that was signed: platform"),
        ({"job": attrs.evolve(RECORD.job, script=b"rm")}, "record     not the one that was signed: script"),
        ({"started": Instant(0)}, "record     not the one that was signed: times"),
        ({"result": Exited(code=1)}, "record     not the one that was signed: result"),
        ({"artifacts": FILES[:2]}, "missing    caf\\xe9"),
        ({"artifacts": (*FILES[:2], attrs.evolve(FILES[2], content=b"y"))}, "differs    caf\\xe9"),
    ],
)
def test_a_record_that_says_something_else(fetched: Path, change: dict[str, Any], said: str) -> None:
    full = fetched.parent / "full"
    full.write_bytes(execution.encode(attrs.evolve(RECORD, **change)))
    assert said in verify(fetched, full, status=1)


def test_a_record_with_two_artifacts_of_one_path(fetched: Path) -> None:
    """Whoever unpacks it may have either of them."""
    full = fetched.parent / "full"
    full.write_bytes(execution.encode(attrs.evolve(RECORD, artifacts=(*FILES, FILES[0]))))
    assert "differs    bin/tool" in verify(fetched, full, status=1)


# --- signatures ----------------------------------------------------------------------------------------------------


def tampered(change: Callable[[Any], Any]) -> Callable[[Path], None]:
    def tamper(path: Path) -> None:
        envelope = json.loads(path.read_text())
        payload = json.loads(base64.b64decode(envelope["payload"]))
        change(payload)
        envelope["payload"] = base64.b64encode(json.dumps(payload).encode()).decode()
        path.write_text(json.dumps(envelope))

    return tamper


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return where there is a text in JSON."""
    if isinstance(value, dict):
        return [place for key, each in value.items() for place in places(each, (*at, key))]
    if isinstance(value, list):
        return [place for index, each in enumerate(value) for place in places(each, (*at, index))]
    return [at]


PLACES = places(json.loads(statement(worker={"name": "w"}, told={"sandbox": "none"}, ended_by="x", template="0" * 64)))


@pytest.mark.parametrize("place", PLACES, ids=lambda place: ".".join(map(str, place)))
def test_whatever_is_changed_in_a_statement_is_noticed(place: tuple[Any, ...]) -> None:
    """In this process: a program for each of them would take a minute."""
    from builder.provenance import InvalidProvenance
    from builder.provenance.statement import Statement
    from builder.provenance.verification import Verdict
    from builder.provenance.verification import verify as hold

    envelope = Envelope.sign(
        statement(worker={"name": "w"}, told={"sandbox": "none"}, ended_by="x", template="0" * 64), [KEY]
    )
    payload = json.loads(envelope.payload)
    holder = payload
    for key in place[:-1]:
        holder = holder[key]
    holder[place[-1]] += "0"
    changed = attrs.evolve(envelope, payload=json.dumps(payload).encode())
    assert envelope.signers([KEY.public]) == ([KEY.public], [])
    assert changed.signers([KEY.public]) == ([], [KEY.public])
    try:
        found = Statement.decode(changed)
    except InvalidProvenance:
        return
    assert hold(changed, found, [KEY.public]).verdict is Verdict.INVALID


def test_a_statement_that_was_changed(fetched: Path) -> None:
    path = fetched / "x.provenance.json"
    tampered(lambda payload: payload["predicate"]["runDetails"]["builder"].update(id="urn:y"))(path)
    assert f"it was changed: the signature of key {KEY.public.id} does not fit" in verify(fetched, status=5)


def test_a_statement_that_was_changed_and_signed_anew(fetched: Path) -> None:
    (fetched / "x.provenance.json").write_bytes(Envelope.sign(statement(), [SigningKey.make(NOW)]).encode())
    assert "signed with none of the keys given, but with" in verify(fetched, status=5)


def test_another_type_of_what_is_signed(fetched: Path) -> None:
    path = fetched / "x.provenance.json"
    envelope = Envelope.decode(path.read_bytes())
    assert attrs.evolve(envelope, payload_type="text/plain").signers([KEY.public]) == ([], [KEY.public])


@pytest.mark.parametrize("signed", [NOW.ms - 1, NOW.ms + 10_000])
def test_a_key_outside_of_its_validity(fetched: Path, signed: int) -> None:
    key = KEY.until(Instant(NOW.ms + 10_000))
    (fetched.parent / "pub").write_text(public_text([key.public]))
    envelope = Envelope.sign(statement(signed=Instant(signed)), [key])
    (fetched / "x.provenance.json").write_bytes(envelope.encode())
    said = verify(fetched, status=5)
    assert "outside of the validity of that: from 2030-03-17T17:46:40Z until 2030-03-17T17:46:50Z" in said


def test_one_of_several_keys_is_enough(fetched: Path) -> None:
    other = SigningKey.make(NOW)
    (fetched / "x.provenance.json").write_bytes(Envelope.sign(statement(), [other, KEY]).encode())
    assert f"valid, of key {KEY.public.id}" in verify(fetched)


def test_many_artifacts_have_one_hash(fetched: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builder.provenance.statement.MAX_SUBJECTS", 10)
    (fetched / "x.provenance.json").write_bytes(Envelope.sign(statement(), [KEY]).encode())
    verify(fetched)
    (fetched / "empty").write_bytes(b"x")
    assert "too many to say which" in verify(fetched, status=1)


# --- what is no provenance -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b"[" * 100_000, b"\xff", b'{"payload": "", "payloadType": "", "signatures": []}', b"x" * 7_000_000],
    ids=["empty", "nothing", "deep", "no text", "not signed", "large"],
)
def test_what_is_no_envelope(fetched: Path, content: bytes) -> None:
    (fetched / "x.provenance.json").write_bytes(content)
    verify(fetched, status=4)


def test_an_execution_in_place_of_an_envelope_and_the_reverse(fetched: Path) -> None:
    full = fetched.parent / "full"
    full.write_bytes(execution.encode(RECORD))
    assert said_of(fetched, full) == (4, f"builder-inspect: {full}: it is no envelope, or a damaged one: no JSON")
    done = run_inspect(str(fetched / "x.provenance.json"))
    assert (done.returncode, b"'builder-inspect verify' reads provenance" in done.stderr) == (4, True)


def test_no_public_keys(fetched: Path) -> None:
    (fetched.parent / "secret").write_text(str(KEY))
    (fetched.parent / "ca.pem").write_text("-----BEGIN CERTIFICATE-----\n")
    assert "secret: there is a private key in that file" in verify(fetched, status=2, key="secret")
    assert "fetched/empty: that is no file of keys" in verify(fetched, status=2, key="fetched/empty")
    assert "ca.pem: these are certificates, for TLS" in verify(fetched, status=2, key="ca.pem")
    assert "can't read" in verify(fetched, status=2, key="missing")


def test_keys_that_came_by_mail(fetched: Path) -> None:
    (fetched.parent / "pub").write_bytes(public_text([KEY.public]).replace("\n", "\r\n").encode("ascii"))
    assert "all as they were signed" in verify(fetched)


def test_the_json_of_a_verification(fetched: Path) -> None:
    (fetched / "caf\udce9").unlink()
    envelope = str(fetched / "x.provenance.json")
    done = run_inspect("verify", envelope, "--json", "--key", str(fetched.parent / "pub"))
    found = json.loads(done.stdout)
    assert (done.returncode, found["signature"], found["as_signed"], found["artifacts"]) == (1, "valid", False, 2)
    assert found["missing"] == [{"path": "caf�", "path_base64": base64.b64encode(b"caf\xe9").decode()}]
    (fetched.parent / "pub").write_text(public_text([SigningKey.make(NOW).public]))
    done = run_inspect("verify", envelope, "--json", "--key", str(fetched.parent / "pub"))
    assert json.loads(done.stdout) == {"signature": "unknown key", "keys": [KEY.public.id]}
