"""builder-server signs what its builds were: whatever stops it, each recorded build has an envelope, and it is right."""

import base64
import datetime as dt
import hashlib
import json
import os
import shutil
import stat
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

import attrs
import forked
import pytest
import trio
from click.testing import CliRunner
from clocks import Clock
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from farm import DEADLINE, LocalServer, Server, environment, eventually, log_lines, run_server, start_server
from scripted import (
    OUR_WORKER,
    OURS,
    ask_job,
    build,
    connect,
    do,
    given_job,
    lose_worker,
    schedule,
    waiting_worker,
)
from securesystemslib import dsse
from securesystemslib.signer import SSlibKey

from builder.extension.watching import EndingState, Look, Looked
from builder.extension.working import BuildFacts, Continue, Fact
from builder.messages import ScheduleOrbBuild
from builder.model import Artifact, Exited, Instant, OrbBuildJob, Period, raw
from builder.provenance import KeysUnusable
from builder.provenance import statement as forms
from builder.provenance.envelope import MAX_SIGNATURES, Envelope
from builder.provenance.keys import PublicKey, public_text, read_public
from builder.provenance.statement import Statement
from builder.provenance.verification import Verdict, compare, verify
from builder_server import attempt, attesting, cli, expiry, statements
from builder_server.keyring import Keyring
from builder_server.store import Signable, Store, StoreError

DAY = 86_400_000

TEMPLATE = b"#!/bin/sh\n%%OPAM_PACKAGE%%\n"

FACTS = {"version": "9.9", "sandbox": "overlay", "limit.memory": "1", "root": "ab" * 32, "snapshot": "20261101T000000Z"}

SOME = (
    Artifact(path="bin/hello", content=b"hello"),
    Artifact(path="a\udcff", content=b""),
    Artifact(path="a\nb", content=b"x"),
)


def path_of(server: LocalServer | Server, name: str, uuid: UUID) -> Path:
    return server.full(name, uuid).with_name("provenance.json")


async def signed(server: LocalServer | Server, name: str, uuid: UUID) -> tuple[Envelope, Statement]:
    """Wait for the envelope of a build, and read it."""
    path = path_of(server, name, uuid)
    await eventually(path.exists, what="the envelope")
    envelope = Envelope.decode(path.read_bytes())
    return envelope, Statement.decode(envelope)


def public_keys(server: LocalServer | Server) -> list[PublicKey]:
    return Keyring(server.data_dir).public(Instant(0))


async def test_a_statement_says_what_a_build_was(tmp_path: Path) -> None:
    async with run_server(tmp_path, builder_id="https://builds.example.org/") as server:
        await do(server, schedule("a", text=b"#!/bin/sh\nmake\n"))
        uuid, _ = await build(server, artifacts=SOME)
        envelope, statement = await signed(server, "a", uuid)
        ((started, finished),) = server.query("select started, finished from build")
        keys = public_keys(server)
    assert verify(envelope, statement, keys).verdict is Verdict.VALID
    assert statement.is_about(uuid, "a")
    assert (statement.started, statement.finished) == (Instant(started), Instant(finished))
    assert (statement.platform, statement.result) == ("p1", Exited(code=0))
    assert statement.builder_id == "https://builds.example.org/"
    assert statement.artifacts == {each.path: hashlib.sha256(each.content).digest() for each in SOME}
    definition = statement.predicate["buildDefinition"]
    digest = {"sha256": hashlib.sha256(b"#!/bin/sh\nmake\n").hexdigest()}
    assert definition["resolvedDependencies"] == [{"name": "script", "digest": digest}]
    assert "builder-server" in statement.predicate["runDetails"]["builder"]["version"]
    assert "peer" in statement.predicate["runDetails"]["metadata"]["builder_worker"]


async def test_an_orb_build_names_the_template_that_its_script_was_made_of(tmp_path: Path) -> None:
    async with run_server(tmp_path) as server:
        (server.config_dir / "orb-build.template.p1").write_bytes(TEMPLATE)
        async with waiting_worker(server) as peer:
            await do(server, ScheduleOrbBuild(period=Period.DAILY, job=OrbBuildJob(name="a", opam_package="pkg.1")))
            taken = await given_job(peer)
            await taken.finish()
        _, statement = await signed(server, "a", taken.uuid)
    definition = statement.predicate["buildDefinition"]
    template = {"name": "template", "digest": {"sha256": hashlib.sha256(TEMPLATE).hexdigest()}}
    assert template in definition["resolvedDependencies"]
    assert definition["externalParameters"]["opam_package"] == "pkg.1"
    assert definition["externalParameters"]["script"] == {"sha256": hashlib.sha256(taken.job.script).hexdigest()}


async def test_what_a_worker_tells_of_a_build_is_kept_through_a_restart(tmp_path: Path) -> None:
    told = BuildFacts(uuid=UUID(int=0), facts=tuple(Fact(name=name, value=value) for name, value in FACTS.items()))
    with trio.CancelScope() as scope:
        async with run_server(tmp_path) as server, connect(server, OUR_WORKER) as peer:
            await do(server, schedule("a"))
            given = await ask_job(peer)
            await peer.send(attrs.evolve(told, uuid=given.uuid))
            await eventually(lambda: server.query("select facts from build") != [(None,)])
            scope.cancel()  # as in a crash
            await trio.lowlevel.checkpoint()
    async with run_server(tmp_path) as server, connect(server, OUR_WORKER) as peer:
        assert await given.come_back(peer) == Continue(lines=0)
        await given.finish(peer)
        _, statement = await signed(server, "a", given.uuid)
    definition, run = statement.predicate["buildDefinition"], statement.predicate["runDetails"]
    assert definition["internalParameters"]["worker"] == {name: FACTS[name] for name in FACTS if name != "version"}
    assert definition["resolvedDependencies"][1:] == [
        {"name": "root", "digest": {"sha256": FACTS["root"]}, "annotations": {"snapshot": FACTS["snapshot"]}}
    ]
    assert run["builder"]["version"]["builder-worker"] == "9.9"
    assert run["metadata"]["builder_worker"]["name"] == "w"


@pytest.mark.parametrize(
    "facts",
    [
        [Fact(name="a", value="1")] * 2,
        [Fact(name=str(number), value="") for number in range(65)],
        [Fact(name="a", value="x" * 257)],
        [Fact(name="", value="x")],
    ],
)
async def test_a_worker_that_tells_what_it_must_not_is_not_taken_back(tmp_path: Path, facts: list[Fact]) -> None:
    async with run_server(tmp_path) as server, connect(server, OUR_WORKER) as peer:
        await do(server, schedule("a"))
        given = await ask_job(peer)
        await peer.send(BuildFacts(uuid=given.uuid, facts=tuple(facts)))
        await eventually(lambda: server.query("select state from build") == [("lost",)])


async def test_what_a_worker_tells_waits_for_the_disk_and_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempt, "RETRY", 0.01)
    original = Store.note_facts
    failed: list[UUID] = []

    async def failing(self: Store, uuid: UUID, facts: Mapping[str, str]) -> None:
        if len(failed) < 3:
            failed.append(uuid)
            raise StoreError("disk I/O error")
        await original(self, uuid, facts)

    monkeypatch.setattr(Store, "note_facts", failing)
    async with run_server(tmp_path) as server, connect(server, OUR_WORKER) as peer:
        await do(server, schedule("a"))
        given = await ask_job(peer)
        await peer.send(BuildFacts(uuid=given.uuid, facts=(Fact(name="sandbox", value="none"),)))
        await given.say(peer, 0, 3)
        await given.finish(peer)
        _, statement = await signed(server, "a", given.uuid)
        assert len(server.execution("a", given.uuid).console) == 3
    assert len(failed) == 3
    assert statement.predicate["buildDefinition"]["internalParameters"] == {"worker": {"sandbox": "none"}}


# --- nothing is lost -----------------------------------------------------------------------------------------------


async def crash_before(root: Path, what: str, monkeypatch: pytest.MonkeyPatch) -> UUID:
    """Have a server record a build and end as in a crash when it comes to a step of signing."""
    reached = trio.Event()

    async def stopped(*_: object, **__: object) -> None:
        reached.set()
        await trio.sleep_forever()

    with monkeypatch.context() as patched, trio.CancelScope() as scope:
        owner, _, name = what.partition(".")
        patched.setattr({"Signer": attesting.Signer, "Store": Store}[owner], name, stopped)
        async with run_server(root) as server:
            await do(server, schedule("a"))
            uuid, _ = await build(server, artifacts=SOME)
            await reached.wait()
            scope.cancel()
            await trio.lowlevel.checkpoint()
    return uuid


@pytest.mark.parametrize("what", ["Signer._sign", "Signer._write", "Store.note_signed"])
async def test_a_crash_between_record_and_signature(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    uuid = await crash_before(tmp_path, what, monkeypatch)
    async with run_server(tmp_path) as server:
        await eventually(lambda: server.query("select provenance from build") == [("signed",)])
        envelope, statement = await signed(server, "a", uuid)
        assert verify(envelope, statement, public_keys(server)).verdict is Verdict.VALID
        assert not compare(statement, {each.path: hashlib.sha256(each.content).digest() for each in SOME})
        assert [path.name for path in path_of(server, "a", uuid).parent.iterdir() if "part" in path.name] == []


async def test_keys_that_can_t_be_used_lose_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr(attesting, "RETRY", 0.01)
    async with run_server(tmp_path) as server:
        directory = Keyring(server.data_dir).directory
        directory.write_bytes(b"no directory")
        await do(server, schedule("a"))
        uuid, _ = await build(server, artifacts=SOME)
        await eventually(lambda: "can't be signed, trying again" in caplog.text)
        assert server.execution("a", uuid).artifacts == SOME
        assert not path_of(server, "a", uuid).exists()
        directory.unlink()
        await signed(server, "a", uuid)
        await eventually(lambda: "signed again" in caplog.text)
    assert caplog.text.count("can't be signed, trying again") == 1


async def test_a_fault_with_one_build_holds_up_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    original = statements._attested

    def faulty(build: Signable, *rest: Any) -> Any:
        assert build.name != "a", "a fault of ours"
        return original(build, *rest)

    monkeypatch.setattr(statements, "_attested", faulty)
    async with run_server(tmp_path) as server:
        await do(server, schedule("a"), schedule("b"))
        first, _ = await build(server)
        second, _ = await build(server)
        await signed(server, "b", second)
        assert not path_of(server, "a", first).exists()
        assert "can't be signed" in caplog.text
    monkeypatch.undo()
    async with run_server(tmp_path) as server:
        await signed(server, "a", first)


async def test_attempts_that_are_not_recorded_are_not_signed(tmp_path: Path) -> None:
    async with run_server(tmp_path) as server:
        await do(server, schedule("a"))
        lost = await lose_worker(server)
        uuid, _ = await build(server, result=Exited(code=3))
        _, statement = await signed(server, "a", uuid)
        assert not path_of(server, "a", lost).exists()
        assert server.query(f"select provenance from build where uuid = '{lost}'") == [(None,)]
    assert (statement.result, statement.artifacts) == (Exited(code=3), {})


async def test_a_build_whose_directory_is_gone_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uuid = await crash_before(tmp_path, "Signer._sign", monkeypatch)
    shutil.rmtree(tmp_path / "data/a" / str(uuid))
    async with run_server(tmp_path) as server:
        await eventually(lambda: server.query("select provenance from build") == [(None,)])
        assert not path_of(server, "a", uuid).parent.exists()


async def test_many_artifacts_have_one_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forms, "MAX_SUBJECTS", 100)
    monkeypatch.setattr(attesting, "ARTIFACTS", 1)
    async with run_server(tmp_path) as server:
        await do(server, schedule("a"))
        uuid, _ = await build(server, artifacts=SOME)
        _, statement = await signed(server, "a", uuid)
    hashes = {each.path: hashlib.sha256(each.content).digest() for each in SOME}
    assert statement.artifacts is None
    assert not compare(statement, hashes)
    assert compare(statement, hashes | {"more": bytes(32)})


# --- keys ----------------------------------------------------------------------------------------------------------


def keys(server: LocalServer | Server, *arguments: str, umask: int = 0o022) -> str:
    command = ["builder_server", f"--dir={server.data_dir}", "keys", *arguments]
    done = forked.run(*command, env=environment(), timeout=DEADLINE, umask=umask)
    done.check_returncode()
    return done.stdout.decode()


def test_no_more_keys_sign_than_an_envelope_has_room_for(tmp_path: Path) -> None:
    ring = Keyring(tmp_path)
    for day in range(MAX_SIGNATURES):
        ring.rotate(Instant(day * DAY))
    signing = ring.signing(Instant(MAX_SIGNATURES * DAY))
    assert (
        len(Envelope.decode(Envelope.sign(b"x", signing).encode()).signers(ring.public(Instant(0)))[0])
        == MAX_SIGNATURES
    )
    with pytest.raises(KeysUnusable, match="16 keys sign already"):
        ring.rotate(Instant(MAX_SIGNATURES * DAY))
    assert ring.signing(Instant(MAX_SIGNATURES * DAY)) == signing
    new = ring.rotate(Instant(MAX_SIGNATURES * DAY), dt.timedelta())  # when one was stolen
    assert ring.signing(Instant(MAX_SIGNATURES * DAY)) == [new]


async def test_a_rotation_while_the_server_runs(tmp_path: Path) -> None:
    async with start_server(tmp_path) as server:
        await do(server, schedule("a"), schedule("b"))
        first, _ = await build(server)
        await signed(server, "a", first)
        before = read_public(await trio.to_thread.run_sync(keys, server, "public"))
        await trio.to_thread.run_sync(keys, server, "rotate", "--overlap=1h")
        both = read_public(await trio.to_thread.run_sync(keys, server, "public"))
        second, _ = await build(server)
        envelope, statement = await signed(server, "b", second)
        listed = await trio.to_thread.run_sync(keys, server, "list")
        for known in (before, both, both[1:]):  # whoever has either of them can verify
            assert verify(envelope, statement, known).verdict is Verdict.VALID
        assert [line.split()[0] for line in listed.splitlines()] == [key.id for key in both]
        assert listed.count(" signs\n") == 2
        assert both[0].valid_until
        assert both[1].valid_until is None


@pytest.mark.parametrize(("option", "value"), [("--valid-for", "1y"), ("--overlap", "a month")])
def test_a_wrong_period_names_its_option(tmp_path: Path, option: str, value: str) -> None:
    done = CliRunner().invoke(cli.command, [f"--dir={tmp_path}", "keys", "rotate", option, value])
    assert (done.exit_code, f"'{option}': '{value}' is not a duration" in done.output) == (2, True)
    assert Keyring(tmp_path).all() == []


def test_no_keys_are_said_to_be_none(tmp_path: Path) -> None:
    done = CliRunner().invoke(cli.command, [f"--dir={tmp_path}", "keys", "list"])
    assert (done.exit_code, done.stdout) == (0, "")
    assert done.stderr.startswith("there is no key yet: ")


def test_the_overlap_of_a_rotation(tmp_path: Path) -> None:
    ring = Keyring(tmp_path)
    (first,) = ring.signing(Instant(0))
    second = ring.rotate(Instant(1000), dt.timedelta(seconds=10), dt.timedelta(seconds=60))
    assert [key.public.id for key in ring.signing(Instant(10_999))] == [first.public.id, second.public.id]
    assert ring.signing(Instant(11_000)) == [second]
    with pytest.raises(KeysUnusable, match="is valid: make one with `builder-server keys rotate`"):
        ring.signing(Instant(61_000))
    third = ring.rotate(Instant(70_000))
    assert ring.signing(Instant(70_000)) == [third]
    assert [bool(key.private_pem) for key in ring.all()] == [
        False,
        False,
        True,
    ]  # with those nothing is signed any more


def test_the_last_end_of_what_signs(tmp_path: Path) -> None:
    ring = Keyring(tmp_path)
    assert ring.last_end() is None
    ring.signing(Instant(0))
    assert ring.last_end() is None, "one without an end"
    hour, minute = dt.timedelta(hours=1), dt.timedelta(minutes=1)
    second = ring.rotate(Instant(0), minute, hour)
    assert ring.last_end() == (second.public.id, Instant(3_600_000))
    third = ring.rotate(Instant(0), minute, 2 * minute)
    assert ring.last_end() == (third.public.id, Instant(120_000)), "the others were ended"
    ring.rotate(Instant(10_000_000))
    assert ring.last_end() is None, "those that sign nothing count for nothing"


async def test_the_end_of_the_key_that_signs_is_said_before(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(expiry, "LOOK_INTERVAL", 0.001)
    day = dt.timedelta(days=1)
    (tmp_path / "data").mkdir()
    ring = Keyring(tmp_path / "data")
    key = ring.rotate(clock.now, dt.timedelta(), 40 * day)
    async with run_server(tmp_path, now=clock) as server, connect(server, OURS) as peer:
        before, *_ = await peer.request(Look(entries=0, results=0))
        assert isinstance(before, Looked)
        assert before.ending == ()
        assert "the key that signs" not in caplog.text
        clock.now = clock.now.plus(15 * day)
        await eventually(
            lambda: log_lines(
                caplog.text, " warning ", "the key that signs builds ends on ", "`builder-server keys rotate`"
            )
        )
        after, *_ = await peer.request(Look(entries=0, results=9))
        assert isinstance(after, Looked)
        assert after.ending == (
            EndingState(name=key.public.id, expires=clock.now.plus(25 * day), is_own=True, is_key=True),
        )
        clock.now = clock.now.plus(25 * day)
        await eventually(lambda: log_lines(caplog.text, "the key that signs builds has ended on "))
        (ring.directory / "x.pem").write_text("Valid-Until: tomorrow\n" + str(key).partition("\n")[2])
        await eventually(lambda: server.query("select 1"))  # what is wrong with a key ends no server
    assert "internal error" not in caplog.text


def test_a_key_that_was_stolen_signs_nothing_from_now_on(tmp_path: Path) -> None:
    ring = Keyring(tmp_path)
    (stolen,) = ring.signing(Instant(0))
    new = ring.rotate(Instant(1000), dt.timedelta())
    assert ring.signing(Instant(1000)) == [new]
    assert ring.all() == [attrs.evolve(stolen.until(Instant(1000)), private_pem=None), new]


def test_keys_are_their_owner_s_from_the_first_byte_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modes = []
    write = os.fdopen

    def seen(descriptor: int, *rest: Any) -> Any:
        modes.append(stat.S_IMODE(os.fstat(descriptor).st_mode))
        return write(descriptor, *rest)

    monkeypatch.setattr(os, "fdopen", seen)
    before = os.umask(0)
    try:
        Keyring(tmp_path).signing(Instant(0))
    finally:
        os.umask(before)
    assert modes == [0o600]
    assert stat.S_IMODE((tmp_path / "builder.keys").stat().st_mode) == 0o700


@pytest.mark.parametrize(
    "content", [b"", b"nonsense", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"]
)
def test_damaged_keys_are_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "builder.keys").mkdir()
    (tmp_path / "builder.keys/x.pem").write_bytes(content)
    with pytest.raises(KeysUnusable, match=r"x\.pem"):
        Keyring(tmp_path).signing(Instant(0))


# --- others --------------------------------------------------------------------------------------------------------


async def test_openssl_verifies_a_signature(tmp_path: Path) -> None:
    """What is signed is put together here, and neither ours nor any library's."""
    async with run_server(tmp_path) as server:
        await do(server, schedule("a"))
        uuid, _ = await build(server, artifacts=SOME)
        await signed(server, "a", uuid)
        found = json.loads(path_of(server, "a", uuid).read_bytes())
        (tmp_path / "pub").write_text(public_text(public_keys(server)))
    payload = base64.b64decode(found["payload"])
    kind = found["payloadType"].encode()
    (tmp_path / "signed").write_bytes(b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload))
    (tmp_path / "signature").write_bytes(base64.b64decode(found["signatures"][0]["sig"]))
    command = [
        "openssl",
        "pkeyutl",
        "-verify",
        "-pubin",
        "-rawin",
        "-inkey",
        "pub",
        "-in",
        "signed",
        "-sigfile",
        "signature",
    ]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)


async def test_securesystemslib_verifies_an_envelope(tmp_path: Path) -> None:
    async with run_server(tmp_path) as server:
        await do(server, schedule("a"))
        uuid, _ = await build(server, artifacts=SOME)
        await signed(server, "a", uuid)
        envelope = dsse.Envelope.from_dict(json.loads(path_of(server, "a", uuid).read_bytes()))
        (key,) = public_keys(server)
    public = SSlibKey.from_crypto(load_pem_public_key(key.pem.encode()))
    assert envelope.verify([public], 1).keys() == {key.id}


def test_the_hash_of_all_is_what_sha256sum_prints(tmp_path: Path) -> None:
    for each in SOME:
        path = tmp_path / os.fsdecode(raw(each.path))
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(each.content)
    command = "find . -type f -print0 | cut -zc3- | LC_ALL=C sort -z | xargs -0r sha256sum | sha256sum | cut -f1 -d' '"
    printed = subprocess.run(command, shell=True, cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    hashes = {each.path: hashlib.sha256(each.content).digest() for each in SOME}
    assert forms.artifacts_hash(hashes) == printed.strip()
