"""metrics: what a server shows of itself, how little it costs, and what the files for operators make of it."""

import datetime as dt
import json
import logging
import re
import shutil
import sqlite3
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import httpx
import pytest
import trio
from attrs import frozen
from authorities import Authority
from clocks import Clock
from farm import DEADLINE, LocalServer, eventually, run_server
from operators import REQUIRED
from prometheus_client.parser import text_string_to_metric_families as parse
from scripted import OUR_WORKER, OURS, build, connect, do, info, schedule, take_job, waiting_worker
from trio.testing import MockClock, wait_all_tasks_blocked

from builder.extension.halting import Halt, Halted, Scope, Target
from builder.extension.watching import Watch
from builder.extension.working import AskJob, Fact
from builder.model import Artifact, Exited, Instant
from builder.needs import PRESSURE
from builder.runtime import exposition, scraping
from builder_server.keyring import Keyring

OPERATIONS = Path(__file__).parent.parent / "docs" / "operations"
PROMTOOL = shutil.which("promtool")

needs_promtool = pytest.mark.skipif(
    PROMTOOL is None and "promtool" not in REQUIRED, reason="promtool of Prometheus is not installed"
)


@frozen
class Shown:
    """A server that shows metrics."""

    server: LocalServer
    port: int

    async def get(self, path: str, method: str = "GET") -> httpx.Response:
        async with httpx.AsyncClient(trust_env=False, verify=False) as client:
            return await client.request(method, f"http://127.0.0.1:{self.port}{path}", timeout=DEADLINE)

    async def text(self) -> str:
        return (await self.get("/metrics")).raise_for_status().text

    async def values(self) -> dict[str, float]:
        """Return all samples by name and labels, as they stand in the text."""
        return {
            sample.name + "".join(f" {name}={value}" for name, value in sorted(sample.labels.items())): sample.value
            for family in parse(await self.text())
            for sample in family.samples
        }

    async def open(self) -> trio.SocketStream:
        return await trio.open_tcp_stream("127.0.0.1", self.port)


@asynccontextmanager
async def showing(root: Path, caplog: pytest.LogCaptureFixture, **options: object) -> AsyncIterator[Shown]:
    caplog.set_level(logging.INFO)
    async with run_server(root, metrics=("127.0.0.1", 0), **options) as server:
        await eventually(lambda: "metrics are at" in caplog.text)
        found = re.search(r"metrics are at http://127.0.0.1:(\d+)/metrics", caplog.text)
        assert found
        yield Shown(server, int(found[1]))


@pytest.fixture
async def shown(
    tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Shown]:
    monkeypatch.setattr(exposition, "INTERVAL", 0.0)
    async with showing(tmp_path, caplog, now=clock) as found:
        yield found


# --- what is shown -------------------------------------------------------------------------------------------------


async def test_what_happens_is_shown(shown: Shown, clock: Clock) -> None:
    server = shown.server
    await do(server, schedule("done"))
    await build(server, lines=[b"12345"], artifacts=[Artifact(path="a", content=b"x" * 1000)])
    await do(server, schedule("failed"))
    await build(server, result=Exited(code=1))
    await do(server, schedule("waits"), schedule("runs"))
    async with (
        take_job(server),
        connect(server, OURS) as watcher,
        waiting_worker(server, "p2"),
        connect(server, OUR_WORKER) as pressed,
    ):
        await watcher.send(Watch())
        await pressed.send(AskJob(platform="p1", worker="w", facts=(Fact(name=PRESSURE, value="no room"),)))
        clock.now = Instant(clock.now.ms + 90_000)
        await eventually(lambda: len(server.query("select * from platform")) == 2)
        await wait_all_tasks_blocked(0.01)
        found = await shown.values()
    text = await shown.text()
    assert found["builder_queue_entries platform=p1"] == 1
    assert found["builder_queue_entries platform=p2"] == 0
    assert found["builder_queue_oldest_seconds platform=p1"] == 90
    assert found["builder_builds_running platform=p1"] == 1
    assert found["builder_workers platform=p1 state=building"] == 1
    assert found["builder_workers platform=p1 state=waiting"] == 0
    assert found["builder_workers platform=p1 state=pressed"] == 1
    assert found["builder_workers platform=p2 state=waiting"] == 1
    assert found["builder_builds_total outcome=succeeded platform=p1"] == 1
    assert found["builder_builds_total outcome=failed platform=p1"] == 1
    assert found["builder_console_bytes_total"] >= 5
    assert found["builder_artifact_bytes_total"] == 1000
    assert found["builder_received_bytes_total"] > 1000
    assert found["builder_dispatch_seconds_count"] == 3
    assert found["builder_commit_seconds_count"] > 3
    assert found["builder_watchers"] == 1
    assert found["builder_connections"] == 4
    assert found["builder_disk_free_bytes"] > 0
    for job in ("done", "failed", "waits", "runs"):  # there may be any number of jobs
        assert f'"{job}"' not in text.replace('outcome="failed"', "").replace('result="failed"', "")


async def test_a_lost_worker_is_counted(shown: Shown) -> None:
    await do(shown.server, schedule("a"))
    async with take_job(shown.server):
        pass
    await eventually(lambda: shown.server.query("select * from build where outcome = 'lost'"))
    assert (await shown.values())["builder_builds_total outcome=lost platform=p1"] == 1


async def test_entries_that_are_paused_are_held(shown: Shown) -> None:
    await do(shown.server, schedule("a"))
    async with waiting_worker(shown.server, "p2"):
        await eventually(lambda: len(shown.server.query("select * from platform")) == 2)
    with sqlite3.connect(shown.server.data_dir / "builder.sqlite3") as database:
        database.execute("update job set paused = 1")
    found = await shown.values()
    assert (found["builder_queue_entries platform=p1"], found["builder_queue_held_entries platform=p1"]) == (0, 1)
    assert found["builder_queue_oldest_seconds platform=p1"] == 0


async def test_what_is_drained_waits_and_is_not_old(shown: Shown, clock: Clock) -> None:
    await do(shown.server, schedule("a"))
    async with waiting_worker(shown.server, "p2"), connect(shown.server, OURS) as client:
        await client.send(Halt(target=Target(scope=Scope.PLATFORM, name="p1"), reason="a test"))
        await client.receive(Halted)
    clock.now = Instant(clock.now.ms + 90_000)
    found = await shown.values()
    assert (found["builder_queue_entries platform=p1"], found["builder_queue_held_entries platform=p1"]) == (0, 1)
    assert found["builder_queue_oldest_seconds platform=p1"] == 0
    assert (found["builder_drained scope=platform"], found["builder_drained scope=server"]) == (1, 0)


async def test_certificates_say_when_they_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    own = Authority(tmp_path).server()
    crl = own.files.ca.with_name("crl.pem")
    async with showing(tmp_path, caplog, tls=own.files, crl=crl if crl.exists() else None) as shown:
        found = await shown.values()
    ends = own.certificate.not_valid_after_utc.timestamp()
    assert found[f"builder_certificate_expiry_timestamp_seconds name={own.files.certificate}"] == ends


async def test_the_key_that_signs_says_when_it_ends(
    tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "data").mkdir()
    key = Keyring(tmp_path / "data").rotate(clock.now, dt.timedelta(), dt.timedelta(days=40)).public
    async with showing(tmp_path, caplog, now=clock) as shown:
        found = await shown.values()
    assert key.valid_until
    assert found[f"builder_signing_key_expiry_timestamp_seconds id={key.id}"] == key.valid_until.ms / 1000


async def test_uploads_are_shown_without_passwords(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exposition, "INTERVAL", 0.0)
    async with showing(tmp_path, caplog, upload="http://me:s3cret@127.0.0.1:1/upload") as shown:
        await do(shown.server, schedule("a"))
        await build(shown.server)
        await eventually(lambda: "not uploaded" in caplog.text)
        found = await shown.values()
        assert "s3cret" not in await shown.text()
    ours = "receiver=http://127.0.0.1:1/upload"
    assert found[f"builder_uploads_pending {ours}"] == 1
    assert found[f"builder_uploads_refused {ours}"] == 0
    assert found[f"builder_uploads_total {ours} result=failed"] == 1
    assert found[f"builder_uploads_total {ours} result=stored"] == 0


# --- pages ---------------------------------------------------------------------------------------------------------


async def test_pages(shown: Shown) -> None:
    assert (await shown.get("/healthz")).text == "ok\n"
    assert (await shown.get("/readyz?verbose")).status_code == 200
    assert (await shown.get("/metrics")).headers["content-type"].startswith("text/plain; version=0.0.4")
    head = await shown.get("/metrics", "HEAD")
    assert (head.status_code, head.content) == (200, b"")
    other = await shown.get("/")
    assert (other.status_code, other.text) == (404, "there is /healthz, /metrics, /readyz\n")
    assert (await shown.get("/metrics", "POST")).status_code == 405


async def test_a_database_that_does_not_answer_is_not_ready(shown: Shown, failing_reads: Callable[[], None]) -> None:
    failing_reads()
    assert (await shown.get("/healthz")).status_code == 200
    for path in ("/readyz", "/metrics"):
        answer = await shown.get(path)
        assert (answer.status_code, answer.text) == (503, "the disk is gone\n")


@pytest.fixture
def failing_reads(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    from builder.runtime.database import StoreError
    from builder.runtime.sqlite import SQLite

    async def read(_database: SQLite, _step: object) -> None:
        raise StoreError("the disk is gone")

    return lambda: monkeypatch.setattr(SQLite, "read", read)


async def test_names_that_look_alike_are_two_series(shown: Shown) -> None:
    names = ["a\u200b", "a\\u200b", "a\\\\u200b", 'a"', "a b"]
    async with AsyncExitStack() as workers:
        for name in names:
            await workers.enter_async_context(waiting_worker(shown.server, name))
        await eventually(lambda: len(shown.server.query("select * from platform")) == len(names))
        samples = [
            (sample.name, *sorted(sample.labels.items()))
            for family in parse(await shown.text())
            for sample in family.samples
        ]
    assert len(set(samples)) == len(samples)
    assert ("builder_workers", ("platform", r"a\u200b"), ("state", "waiting")) in samples


async def test_an_address_that_is_taken(tmp_path: Path) -> None:
    taken = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    port = taken.socket.getsockname()[1]
    async with taken:
        with pytest.raises(scraping.CannotServe, match=rf"127\.0\.0\.1:{port}: .*[Aa]ddress already in use"):
            await scraping.listen("127.0.0.1", port)


# --- what it costs -------------------------------------------------------------------------------------------------


async def test_a_thousand_who_ask_are_answered_with_one_page(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exposition, "INTERVAL", 3600.0)
    async with showing(tmp_path, caplog) as shown:
        first = await shown.text()
        await do(shown.server, schedule("a"))
        async with waiting_worker(shown.server):
            await info(shown.server)
        assert await shown.text() == first


@pytest.mark.parametrize("said", [b"", b"GET /metrics HT"])
async def test_who_is_slow_or_many_shuts_nobody_out(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    mock_clock: MockClock,
    said: bytes,
) -> None:
    mock_clock.rate = 1  # the test's own deadlines are real
    monkeypatch.setattr(scraping, "TIMEOUT", 2 * DEADLINE)  # until then nobody goes for it
    ended: list[trio.SocketStream] = []
    async with showing(tmp_path, caplog) as shown, trio.open_nursery() as nursery:

        async def be_slow() -> None:
            async with await shown.open() as stream:
                await stream.send_all(said)
                assert await stream.receive_some() == b""
                ended.append(stream)

        async def begin(count: int) -> None:
            for _ in range(count):
                nursery.start_soon(be_slow)
            await wait_all_tasks_blocked(0.01)

        await begin(scraping.PLACES)
        for gone in (1, 2):
            assert (await shown.get("/healthz")).status_code == 200
            await eventually(lambda: len(ended) == gone)  # noqa: B023 - at once
            await begin(1)
        await info(shown.server)
        mock_clock.jump(scraping.TIMEOUT + 1)
        await eventually(lambda: len(ended) == scraping.PLACES + 2)
        assert (await shown.get("/healthz")).status_code == 200


@pytest.mark.parametrize("said", [b"GET / HTTP/1.1\r\nA: " + b"x" * 100_000, b"\xff" * 100, b"\x16\x03\x01"])
async def test_what_is_no_request(shown: Shown, said: bytes, caplog: pytest.LogCaptureFixture) -> None:
    caplog.clear()
    async with await shown.open() as stream:
        try:
            await stream.send_all(said)
            await stream.send_eof()
            assert await stream.receive_some() == b""
        except trio.BrokenResourceError:
            pass  # it was closed with bytes unread
    assert caplog.records == []


# --- the files for operators ---------------------------------------------------------------------------------------


def names_in(expressions: str) -> set[str]:
    return set(re.findall(r"\b(?:builder|process)_[a-z_]+", expressions))


def expressions_of(path: Path) -> str:
    if path.suffix == ".json":
        dashboard = json.loads(path.read_text("utf-8"))
        targets = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
        return "\n".join([*targets, *(each["query"]["query"] for each in dashboard["templating"]["list"][1:])])
    return "\n".join(re.findall(r"^ +expr: (.*)", path.read_text("utf-8"), re.MULTILINE))


@pytest.mark.parametrize("file", ["alerts.yml", "grafana-dashboard.json"])
async def test_the_files_for_operators_name_what_there_is(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, file: str
) -> None:
    async with showing(tmp_path, caplog, upload="http://127.0.0.1:1/upload") as shown:
        await do(shown.server, schedule("a"))
        await build(shown.server)
        text = await shown.text()
    there_are = {name for family in parse(text) for name in (family.name, *(each.name for each in family.samples))}
    used = names_in(expressions_of(OPERATIONS / file))
    assert len(used) > 8
    assert used - there_are == set()


@needs_promtool
async def test_the_conventions_of_prometheus_are_kept(shown: Shown) -> None:
    await do(shown.server, schedule("a"))
    await build(shown.server)
    assert PROMTOOL, "it is required"
    done = subprocess.run(
        [PROMTOOL, "check", "metrics"], input=await shown.text(), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@needs_promtool
def test_the_alert_rules_are_rules() -> None:
    assert PROMTOOL, "it is required"
    done = subprocess.run(
        [PROMTOOL, "check", "rules", OPERATIONS / "alerts.yml"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "9 rules found" in done.stdout


@needs_promtool
def test_the_alerts_fire_when_they_should() -> None:
    assert PROMTOOL, "it is required"
    cases = Path(__file__).parent / "data" / "alerts.test.yml"
    done = subprocess.run([PROMTOOL, "test", "rules", cases], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
