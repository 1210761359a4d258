"""What servers have signed of builds, at builder-web: what is taken of it, and what is said of it."""

import datetime as dt
import hashlib
from pathlib import Path
from typing import Any
from uuid import UUID

import attrs
import pytest
from click.testing import CliRunner
from farm import eventually, run_server
from scripted import build, do, schedule
from served import serving_site
from sites import UPLOADS, Answer, InProcess, authorization, make_directory, open_site

from builder import execution
from builder.model import Artifact, Execution, Instant, raw
from builder.provenance import MAX_ENVELOPE
from builder.provenance.envelope import Envelope
from builder.provenance.keys import InvalidKey, SigningKey
from builder.provenance.statement import Attested, Subject, Subjects, encode
from builder_server import attesting
from builder_server.keyring import Keyring
from builder_server.names import KEYS
from builder_web import cli
from builder_web.store import builds, opening, provenance, removal

NOW = Instant(1_795_000_000_000)
KEY = SigningKey.make(NOW)
ADMIN = authorization("admin")


def signed(
    record: Execution, key: SigningKey = KEY, artifacts: tuple[Artifact, ...] | None = None, **changes: Any
) -> bytes:
    subjects = Subjects()
    ordered = sorted(record.artifacts if artifacts is None else artifacts, key=lambda each: raw(each.path))
    subjects.add([Subject(path=each.path, sha256=hashlib.sha256(each.content).digest()) for each in ordered])
    facts = Attested(
        builder_id="urn:x",
        uuid=record.uuid,
        job=record.job.name,
        platform=record.job.platform,
        script_sha256=hashlib.sha256(record.job.script).digest(),
        started=record.started,
        finished=record.finished,
        signed=NOW,
        result=record.result,
    )
    return Envelope.sign(encode(attrs.evolve(facts, **changes), subjects), [key]).encode()


@pytest.fixture
def record() -> Execution:
    return execution.decode((UPLOADS / "good.full").read_bytes())


@pytest.fixture
async def site(tmp_path: Path) -> Any:
    async with open_site(make_directory(tmp_path / "data"), keys=(KEY.until(Instant(NOW.ms + 1000)).public,)) as site:
        await site.upload("good.full")
        yield site


def address(record: Execution) -> str:
    return f"/job/{record.job.name}/build/{record.uuid}/provenance"


async def post(site: InProcess, record: Execution, content: bytes, **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await site.client.request("POST", address(record), content=content, headers={**ADMIN, **named})


async def page(site: InProcess, record: Execution) -> str:
    return (await site.client.get(f"/job/{record.job.name}/build/{record.uuid}")).text


async def test_an_upload_is_told_where_its_provenance_goes(tmp_path: Path, record: Execution) -> None:
    async with open_site(make_directory(tmp_path / "data"), prefix="/builds") as site:
        for status in (201, 409):
            answer = await site.upload("good.full")
            assert (answer.status, answer.headers["builder-provenance"]) == (status, f"/builds{address(record)}")
        assert "builder-provenance" not in (await site.upload("bad-slash.full")).headers


async def test_it_is_shown_and_goes_out_as_it_came(site: InProcess, record: Execution) -> None:
    assert "Provenance" not in await page(site, record)
    assert (await site.client.get(address(record))).status == 404
    envelope = signed(record)
    assert (await post(site, record, envelope)).status == 201
    shown = await page(site, record)
    assert "Signature valid" in shown
    assert KEY.public.id[:32] in shown
    assert f'href="{address(record)}"' in shown
    answer = await site.client.get(address(record))
    assert (answer.status, answer.content) == (200, envelope)
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["content-disposition"].startswith("attachment;")


async def test_the_first_one_stays(site: InProcess, record: Execution) -> None:
    first = signed(record)
    assert (await post(site, record, first)).status == 201
    for other in (first, signed(record, SigningKey.make(NOW))):
        assert (await post(site, record, other)).status == 409
    assert (await site.client.get(address(record))).content == first


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda record: signed(record, SigningKey.make(NOW)), "Signed by a key that is not known here"),
        (lambda record: signed(record, signed=Instant(NOW.ms + 1000)), "Signature outside of the key"),
        (lambda record: signed(record).replace(b'"sig": "', b'"sig": "AAAA'), "Signature invalid"),
        (lambda record: signed(record, artifacts=record.artifacts[1:]), "Not what was signed"),
        (lambda record: signed(record, artifacts=(*record.artifacts, Artifact(path="<b>", content=b""))), "&lt;b&gt;"),
    ],
    ids=["another key", "outside", "changed", "an artifact more", "an artifact less"],
)
async def test_what_can_t_be_believed(site: InProcess, record: Execution, made: Any, said: str) -> None:
    assert (await post(site, record, made(record))).status == 201
    shown = await page(site, record)
    assert said in shown
    assert "Signature valid" not in shown


async def test_without_keys_nothing_is_verified(tmp_path: Path, record: Execution) -> None:
    async with open_site(make_directory(tmp_path / "data")) as site:
        await site.upload("good.full")
        await post(site, record, signed(record))
        assert "not verified: no keys are known here" in await page(site, record)


async def test_what_is_refused(site: InProcess, record: Execution) -> None:
    envelope = signed(record)
    for content, headers, status in (
        (b"", {}, 400),
        (b"{}", {}, 400),
        (b"[" * 100_000, {}, 400),
        (signed(attrs.evolve(record, uuid=UUID(int=1))), {}, 400),
        (signed(record, job="other"), {}, 400),
        (Envelope.sign(b"{}", [KEY]).encode(), {}, 400),
        (bytes(MAX_ENVELOPE + 1), {}, 413),
        (b"", {"content_length": str(MAX_ENVELOPE + 1)}, 413),
        (envelope, {"content_encoding": "gzip"}, 400),
        (envelope, {"authorization": "Basic eDp5"}, 401),
        (envelope, authorization("limited"), 401),
    ):
        answer = await post(site, record, content, **headers)
        assert answer.status == status, answer.text
    other = attrs.evolve(record, uuid=UUID(int=7))
    assert (await post(site, other, signed(other))).status == 404
    assert "Provenance" not in await page(site, record)


async def test_it_goes_with_its_build(site: InProcess, record: Execution) -> None:
    await post(site, record, signed(record))
    found = await site.store.ask(builds.find, str(record.uuid))
    assert found
    await site.store.database.write(lambda connection: removal.remove(connection, [found]))
    assert await site.store.ask(provenance.find, found) is None
    assert not await site.store.database.write(lambda connection: provenance.record(connection, found, b""))


async def test_it_outlives_another_form_of_our_tables(tmp_path: Path, record: Execution) -> None:
    directory = make_directory(tmp_path / "data")
    async with open_site(directory) as site:
        await site.upload("good.full")
        await post(site, record, signed(record))
    with opening.writing(directory.database) as connection:
        connection.exec_driver_sql("update web_form set version = 1")
    async with open_site(directory) as site:
        assert (await site.client.get(address(record))).status == 200


# --- with a server -------------------------------------------------------------------------------------------------

SOME = (
    Artifact(path="bin/a", content=b"a"),
    Artifact(path="README.md", content=b"# a"),
    Artifact(path="b", content=b""),
)


async def test_it_travels_with_the_upload(tmp_path: Path) -> None:
    keyring = Keyring(tmp_path / "farm" / "data")
    (tmp_path / "farm" / "data").mkdir(parents=True)
    keys = tuple(keyring.public(Instant(0)))
    async with serving_site(make_directory(tmp_path / "site"), keys=keys) as (site, served):
        upload = f"http://admin:correct%20horse@127.0.0.1:{served.port}/upload"
        async with run_server(tmp_path / "farm", upload=upload) as server:
            await do(server, schedule("a"))
            uuid, _ = await build(server, artifacts=SOME)
            await eventually(lambda: server.query("select upload from build") == [("done",)])
            envelope = server.full("a", uuid).with_name("provenance.json").read_bytes()
        assert (await site.client.get(f"/job/a/build/{uuid}/provenance")).content == envelope
        assert "Signature valid" in (await site.client.get(f"/job/a/build/{uuid}")).text


async def test_what_is_not_signed_yet_comes_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The site has the build at once, and the server keeps its record until the rest is there as well."""
    monkeypatch.setattr(attesting, "RETRY", 0.01)
    monkeypatch.setattr("builder_server.retrying.pause", lambda *_: dt.timedelta(milliseconds=50))
    async with serving_site(make_directory(tmp_path / "site")) as (site, served):
        upload = f"http://admin:correct%20horse@127.0.0.1:{served.port}/upload"
        (tmp_path / "farm" / "data").mkdir(parents=True)
        blocked = tmp_path / "farm" / "data" / KEYS
        blocked.touch()
        async with run_server(tmp_path / "farm", upload=upload) as server:
            await do(server, schedule("a"))
            uuid, _ = await build(server, artifacts=SOME)
            await eventually(
                lambda: [row for row in server.query("select reason from upload") if "not signed" in str(row)]
            )
            assert (await site.client.get(f"/job/a/build/{uuid}")).status == 200
            assert server.full("a", uuid).exists()
            blocked.unlink()
            await eventually(lambda: server.query("select upload from build") == [("done",)])
        assert (await site.client.get(f"/job/a/build/{uuid}/provenance")).status == 200


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "can't read"), ("nothing", "is no file of keys"), (str(KEY), "there is a private key in that file")],
)
def test_keys_that_are_none_are_refused_at_the_start(tmp_path: Path, content: str | None, said: str) -> None:
    path = tmp_path / "pub"
    if content is not None:
        path.write_text(content)
    done = CliRunner().invoke(cli.command, [f"--datadir={tmp_path}", f"--provenance-key={path}"])
    assert isinstance(done.exception, InvalidKey)
    assert said in str(done.exception)
    assert str(path) in str(done.exception)
