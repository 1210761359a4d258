"""Every pairing of the original's programs with ours: what each does, and what each reads of the other's files."""

import itertools
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from check_peer import FARM, require
from peers import DEADLINE, Farm, binary, wait_until

from builder import codec, execution
from builder.model import Aborted, Exited, Signalled

pytestmark = pytest.mark.interop

KINDS = ("ours", "theirs")
PAIRINGS = [kinds for kinds in itertools.product(KINDS, repeat=3) if set(kinds) != {"ours"}]
PAIRS = [("ours", "theirs"), ("theirs", "ours")]

HELLO = """#!/bin/sh
echo one
printf '\\377\\376\\n'
echo two >&2
mkdir -p bin a/b
printf '\\000\\377' > bin/hello.hvt
echo readme > README.md
: > a/b/empty
echo hidden > .hidden
exit 3
"""

Make = Callable[..., Farm]


@pytest.fixture(autouse=True)
def _peer_programs() -> None:
    require(FARM)


@pytest.fixture
def make_farm(tmp_path: Path) -> Iterator[Callable[..., Farm]]:
    """Return a function that makes a farm with a server of some kind; all is stopped at the end."""
    with ExitStack() as stack:

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


@pytest.mark.parametrize(("server", "worker", "client"), PAIRINGS)
def test_a_job_from_schedule_to_result(make_farm: Make, server: str, worker: str, client: str) -> None:
    farm = make_farm(server)
    farm.client(client, "schedule", "hello", "p1", farm.script(HELLO), "--period", "weekly")
    assert "hello" in farm.client(client, "info")
    assert farm.start_worker(worker).wait(DEADLINE) == 0
    full = farm.wait_full("hello")
    found = execution.decode(full.read_bytes())
    assert found.job.name == "hello"
    assert found.job.platform == "p1"
    assert found.job.script == HELLO.encode()
    assert str(found.uuid) == full.parent.name
    assert found.result == Exited(code=3)
    said = [line.line for line in found.console if not line.line.startswith(b"builder-worker: ")]
    assert sorted(said) == sorted([b"one", b"\xff\xfe", b"two"])
    assert [line.delta for line in found.console] == sorted(line.delta for line in found.console)
    assert {file.path: file.content for file in found.artifacts} == {
        "README.md": b"readme\n",
        "a/b/empty": b"",
        "bin/hello.hvt": b"\x00\xff",
    }
    assert execution.encode(found) == full.read_bytes()


@pytest.mark.parametrize("worker", KINDS)
@pytest.mark.parametrize("server", KINDS)
@pytest.mark.parametrize("inspect", KINDS)
def test_each_inspects_the_others_executions(
    make_farm: Make, server: str, worker: str, inspect: str, tmp_path: Path
) -> None:
    farm = make_farm(server)
    farm.client("ours", "schedule", "hello", "p1", farm.script(HELLO))
    assert farm.start_worker(worker).wait(DEADLINE) == 0
    full = str(farm.wait_full("hello"))

    def run(*arguments: str) -> bytes:
        done = subprocess.run(
            [binary(inspect, "builder-inspect"), full, *arguments], capture_output=True, timeout=DEADLINE, check=True
        )
        return done.stdout + done.stderr

    assert b"hello" in run("--job")
    assert b"echo one" in run("--script")
    assert b"one" in run("--console")
    target = tmp_path / "extracted"
    target.mkdir()
    run("--output", str(target))
    assert (target / "bin/hello.hvt").read_bytes() == b"\x00\xff"
    assert (target / "a/b/empty").read_bytes() == b""


@pytest.mark.parametrize(("server", "worker", "client"), PAIRINGS)
def test_a_client_observes_a_running_build(make_farm: Make, server: str, worker: str, client: str) -> None:
    farm = make_farm(server)
    gate = farm.root / "gate"
    farm.client(
        client,
        "schedule",
        "slow",
        "p1",
        farm.script(f"echo before\nwhile [ ! -e {gate} ]; do sleep 0.1; done\necho after\n"),
    )
    running = farm.start_worker(worker)
    uuid = _wait_running(farm, "slow")
    if client == "ours":
        observer = farm.start_client(client, "observe", uuid)
    else:
        observer = farm.start_client(client, "observe-latest")
    assert observer.stdout is not None
    seen = b""
    while b"before" not in seen:
        line = observer.stdout.readline()
        assert line, seen
        seen += line
    gate.touch()
    rest = observer.stdout.read()
    assert observer.wait(DEADLINE) == 0
    assert b"after" in rest
    assert b"exited 0" in rest
    assert running.wait(DEADLINE) == 0


def _wait_running(farm: Farm, job: str) -> str:
    """Return the uuid of a job's running build, as our client sees it."""
    import json

    found: list[str] = []

    def running() -> bool:
        found[:] = [build["uuid"] for build in json.loads(farm.client("ours", "info", "--json"))["running"]]
        return bool(found)

    wait_until(running, f"{job} running")
    return found[0]


@pytest.mark.parametrize(("server", "client"), PAIRS)
def test_commands_and_their_failures(make_farm: Make, server: str, client: str) -> None:
    farm = make_farm(server)
    script = farm.script("#!/bin/sh\nexit 0\n")
    farm.client(client, "schedule", "one", "p1", script)
    assert "job name already used" in farm.client(client, "schedule", "one", "p1", script, ok=False)
    farm.client(client, "orb-build", "orb", "retreat", "--period", "never")
    farm.client(client, "reschedule", "one", "2030-01-01T00:00:00Z", "--period", "hourly")
    assert "2030-01-01" in farm.client(client, "info") or client == "ours"
    farm.client(client, "execute", "one")
    farm.client(client, "execute", "orb", "--platform", "p1")
    assert "job not found" in farm.client(client, "execute", "none", ok=False)
    assert "no such platform" in farm.client(client, "execute", "orb", "--platform", "p9", ok=False)
    assert "different platform" in farm.client(client, "execute", "one", "--platform", "p9", ok=False)
    farm.client(client, "unschedule", "orb")
    assert "unknown job orb" in farm.client(client, "unschedule", "orb", ok=False)
    farm.client(client, "drop-platform", "p1")
    assert "p1" in farm.client(client, "info")
    assert "platform dropped" in farm.client(client, "schedule", "two", "p1", script, ok=False)
    farm.client(client, "undrop-platform", "p1")
    assert "unknown platform" in farm.client(client, "undrop-platform", "p1", ok=False)
    assert "unknown platform" in farm.client(client, "drop-platform", "p9", ok=False)


@pytest.mark.parametrize(("server", "worker"), PAIRS)
def test_an_orb_build_goes_through_the_template(make_farm: Make, server: str, worker: str) -> None:
    farm = make_farm(server)
    (farm.config / "orb-build.template.p1").write_text("#!/bin/sh\necho %%OPAM_PACKAGE%% on %%PLATFORM%% > built\n")
    farm.client("ours", "orb-build", "orb", "retreat", "--period", "never")
    assert farm.start_worker(worker).wait(DEADLINE) == 0
    found = execution.decode(farm.wait_full("orb").read_bytes())
    assert [(file.path, file.content) for file in found.artifacts] == [("built", b"retreat on p1\n")]
    assert found.job.platform == "p1"


@pytest.mark.parametrize(("server", "worker"), PAIRS)
def test_a_signal_ends_the_job(make_farm: Make, server: str, worker: str) -> None:
    farm = make_farm(server)
    farm.client("ours", "schedule", "killed", "p1", farm.script("#!/bin/sh\nkill -KILL $$\n"))
    assert farm.start_worker(worker).wait(DEADLINE) == 0
    assert execution.decode(farm.wait_full("killed").read_bytes()).result == Signalled(signal=-7)


@pytest.mark.parametrize(("server", "worker"), PAIRS)
def test_a_killed_workers_job_goes_to_the_next(make_farm: Make, server: str, worker: str) -> None:
    farm = make_farm(server)
    gate = farm.root / "gate"
    farm.client(
        "ours", "schedule", "again", "p1", farm.script(f"echo started\nwhile [ ! -e {gate} ]; do sleep 0.1; done\n")
    )
    first = farm.start_worker(worker)
    lost = _wait_running(farm, "again")
    os.killpg(first.pid, signal.SIGKILL)
    gate.touch()
    assert farm.start_worker(worker).wait(DEADLINE) == 0
    full = farm.wait_full("again")
    assert full.parent.name != lost
    assert execution.decode(full.read_bytes()).result == Exited(code=0)


@pytest.mark.parametrize("worker", KINDS)
def test_many_lines_and_a_large_artifact(make_farm: Make, worker: str) -> None:
    server = "ours" if worker == "theirs" else "theirs"
    farm = make_farm(server)
    farm.client("ours", "schedule", "large", "p1", farm.script("seq 1 20000\nhead -c 20000000 /dev/zero > zeros\n"))
    assert farm.start_worker(worker).wait(DEADLINE) == 0
    found = execution.decode(farm.wait_full("large").read_bytes())
    said = [line.line for line in found.console if not line.line.startswith(b"builder-worker: ")]
    assert said == [b"%d" % number for number in range(1, 20001)]
    assert [(file.path, len(file.content)) for file in found.artifacts] == [("zeros", 20_000_000)]


def test_our_server_takes_over_the_originals_state(make_farm: Make) -> None:
    farm = make_farm("theirs")
    script = farm.script("#!/bin/sh\nexit 0\n")
    farm.client("theirs", "schedule", "one", "p1", script, "--period", "hourly")
    farm.client("theirs", "schedule", "two", "p2", script, "--period", "weekly")
    farm.client("theirs", "orb-build", "orb", "retreat", "--period", "never")
    farm.client("theirs", "schedule", "gone", "p3", script)
    farm.client("theirs", "drop-platform", "p3")
    farm.stop_server()
    before = codec.decode_state((farm.data / "state").read_bytes())
    farm.start_server("ours")
    shown = farm.client("theirs", "info")
    for name in ("one", "two", "orb", "p3"):
        assert name in shown, (name, before)
    assert not (farm.data / "state").exists()
    assert farm.start_worker("theirs").wait(DEADLINE) == 0
    assert execution.decode(farm.wait_full("one").read_bytes()).result == Exited(code=0)


def test_both_servers_post_the_same_upload(make_farm: Make) -> None:
    bodies = {}
    for server in KINDS:
        with _endpoint() as (url, received):
            farm = make_farm(server, upload=url)
            farm.client("ours", "schedule", "hello", "p1", farm.script(HELLO))
            assert farm.start_worker("theirs").wait(DEADLINE) == 0
            wait_until(lambda: bool(received), "an upload")
            path, headers, body = received[0]
            assert path == "/upload"
            assert headers["Authorization"] == "Basic dXNlcjpzZWNyZXQ="
            assert int(headers["Content-Length"]) == len(body)
            assert "Transfer-Encoding" not in headers
            bodies[server] = execution.decode(body)
            wait_until(lambda: not farm.fulls("hello"), "no local copy")  # noqa: B023
    ours, theirs = bodies["ours"], bodies["theirs"]
    assert ours.job == theirs.job
    assert ours.result == theirs.result
    assert ours.artifacts == theirs.artifacts
    assert sorted(line.line for line in ours.console) == sorted(line.line for line in theirs.console)


@contextmanager
def _endpoint() -> Iterator[tuple[str, list[tuple[str, dict[str, str], bytes]]]]:
    """Run an HTTP server that takes uploads; yield its URL and what it receives."""
    received: list[tuple[str, dict[str, str], bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            received.append((self.path, dict(self.headers.items()), body))
            self.send_response(201)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://user:secret@127.0.0.1:{server.server_port}/upload", received
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_the_originals_worker_survives_our_servers_timeout(make_farm: Make) -> None:
    os.environ["BUILDER_SERVER_JOB_TIMEOUT"] = "2"
    try:
        farm = make_farm("ours")
    finally:
        del os.environ["BUILDER_SERVER_JOB_TIMEOUT"]
    farm.client("theirs", "schedule", "long", "p1", farm.script("#!/bin/sh\nsleep 60\n"), "--period", "daily")
    farm.start_worker("theirs")
    found = execution.decode(farm.wait_full("long").read_bytes())
    assert found.result == Aborted(message="timeout after 2s (--job-timeout of the server)")
