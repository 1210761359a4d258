"""From a job to its page: a real server, worker and site; what is shown of a build, and what the server keeps of it."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote
from uuid import UUID

import httpx
from attrs import frozen
from farm import DEADLINE, Server, eventually, read_line, run_client, running_server, running_worker, start
from sites import PASSWORDS, authorization, make_directory

WORKER = ("--loop", "--sandbox=none")
HELLO = "echo making\nmkdir bin\necho hello > bin/hello\n"


@frozen
class Site:
    """A builder-web that runs."""

    client: httpx.Client

    def get(self, path: str) -> bytes:
        answer = self.client.get(path)
        assert answer.status_code == 200, path
        return answer.content

    def page(self, path: str) -> str:
        """Return the text of a page, each run of white space and markup as one space."""
        return re.sub(r"(<[^>]*>|\s)+", " ", self.get(path).decode())

    def post(self, content: bytes) -> int:
        """Return the status of an upload."""
        return self.client.post("/upload", content=content, headers=authorization("admin")).status_code

    def upload_url(self, password: str = PASSWORDS["admin"]) -> str:
        base = self.client.base_url
        return f"http://admin:{quote(password)}@{base.host}:{base.port}/upload"


@contextmanager
def running_site(root: Path) -> Iterator[Site]:
    """Run builder-web as a process until the block ends."""
    directory = make_directory(root / "site")
    options = ("--port=0", f"--datadir={directory.root}", f"--configdir={root}")
    program = start("builder_web", *options, log_path=root / "site.log")
    try:
        address = read_line(program).rpartition(" ")[2]
        with httpx.Client(base_url=address, trust_env=False, timeout=DEADLINE) as client:
            yield Site(client)
    finally:
        program.kill()
        assert program.process.stdout
        program.process.stdout.close()


def run(server: Server, root: Path, name: str, script: str) -> None:
    path = root / "script.sh"
    path.write_text(script)
    done = run_client(server, "schedule", name, "p1", str(path), "--period", "never")
    assert done.returncode == 0, done.stderr


async def builds(server: Server, name: str, upload: str, count: int = 1) -> list[UUID]:
    """Wait for so many builds of a job whose upload has come so far, and return them, the oldest first."""
    query = f"select uuid from build where name = '{name}' and upload = '{upload}' order by started, rowid"
    await eventually(lambda: len(server.query(query)) >= count, what=f"{count} builds of {name}: {upload}")
    return [UUID(row[0]) for row in server.query(query)]


async def test_what_was_built_is_shown_and_not_kept_by_the_server(tmp_path: Path) -> None:
    with (
        running_site(tmp_path) as site,
        running_server(tmp_path, f"--upload={site.upload_url()}") as server,
        running_worker(server, "p1", *WORKER),
    ):
        run(server, tmp_path, "hello", HELLO)
        (first,) = await builds(server, "hello", "done")
        assert not server.full("hello", first).exists()
        assert "hello" in site.page("/")
        assert "built once" in site.page("/job/hello")
        shown = site.page(f"/job/hello/build/{first}")
        assert "Built once." in shown
        assert "exited 0" in shown
        assert site.get(f"/job/hello/build/{first}/f/bin/hello") == b"hello\n"
        assert re.match(rb"[0-9.]+s:making\n", site.get(f"/job/hello/build/{first}/console"))

        assert run_client(server, "execute", "hello").returncode == 0
        second = (await builds(server, "hello", "done", 2))[-1]
        assert "reproduced: built 2 times" in site.page("/job/hello")
        assert "Reproduced. Built 2 times" in site.page(f"/job/hello/build/{second}")

        run(server, tmp_path, "broken", "echo oh no\nexit 3\n")
        (failed,) = await builds(server, "broken", "done")
        assert not server.full("broken", failed).exists()
        assert "broken on p1 exited 3" in site.page("/failed-builds")
        assert "Failed: exited 3" in site.page(f"/job/broken/build/{failed}")
        assert server.log.count("uploaded (HTTP 201)") == 3


async def test_what_was_refused_is_kept_and_what_is_there_already_is_delivered(tmp_path: Path) -> None:
    with running_site(tmp_path) as site:
        with (
            running_server(tmp_path, f"--upload={site.upload_url('wrong')}") as server,
            running_worker(server, "p1", *WORKER),
        ):
            run(server, tmp_path, "hello", HELLO)
            await server.wait_for_log("HTTP 401")
            (uuid,) = await builds(server, "hello", "pending")
            kept = server.full("hello", uuid)
            assert kept.exists()
            assert server.terminate() == 0
        content = kept.read_bytes()
        assert [site.post(content), site.post(content)] == [201, 409]
        with running_server(tmp_path, f"--upload={site.upload_url()}") as server:
            assert run_client(server, "retry-upload", "--all").returncode == 0  # or it would wait for its pause
            assert await builds(server, "hello", "done") == [uuid]
            assert not kept.exists()
            assert "uploaded (HTTP 409)" in server.log
        assert "built once" in site.page("/job/hello")
