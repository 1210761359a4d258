"""Replays what the original builder-web answered to a fixed set of uploads, against the real program.

``recordings.jsonl`` holds a step a line, see data/README.md. Where the original is at fault, ``expected`` is right.
"""

import gzip
import hashlib
import http.client
import io
import json
import os
import re
import select
import signal
import sqlite3
import subprocess
import sys
import tarfile
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import closing
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import forked

from builder import execution

DATA = Path(__file__).parent / "data"
UPLOADS = DATA / "uploads"
PASSWORDS = {"admin": b"correct horse", "limited": b"battery:staple"}

Step = dict[str, Any]


def recordings() -> list[Step]:
    return [json.loads(line) for line in (DATA / "golden" / "recordings.jsonl").read_text().splitlines()]


def builder_db(root: Path, *args: str, password: bytes = b"") -> None:
    done = forked.run(
        "builder_web.administration", *args, "--datadir", str(root), env=os.environ, timeout=60, stdin=password
    )
    assert done.returncode == 0, done.stderr.decode()


class Site:
    """A builder-web process with a data directory."""

    def __init__(self, root: Path, args: list[str]) -> None:
        self.root = root
        self.captured: dict[str, str] = {}
        self._process: forked.Process | None = None
        self.hook_calls = root.parent / f"{root.name}-hooks.jsonl"
        self.configuration = root.parent / f"{root.name}-config"
        hooks = self.configuration / "upload-hooks"
        hooks.mkdir(parents=True)
        hook = hooks / "note.sh"
        hook.write_text(
            f"#!{sys.executable} -IS\nimport json, sys\n"
            f"with open({str(self.hook_calls)!r}, 'a') as f: f.write(json.dumps(sys.argv[1:]) + '\\n')\n"
        )
        hook.chmod(0o755)
        builder_db(root, "migrate")
        builder_db(root, "user-add", "--unrestricted", "admin", password=PASSWORDS["admin"])
        builder_db(root, "user-add", "limited", password=PASSWORDS["limited"])
        self.start(args)

    def start(self, args: list[str]) -> None:
        arguments = ("--port", "0", "--datadir", str(self.root), "--configdir", str(self.configuration), *args)
        self._process = forked.start("builder_web", *arguments, env=os.environ, stdout=subprocess.PIPE)
        assert self._process.stdout
        readable, _, _ = select.select([self._process.stdout], [], [], 30)
        assert readable, "builder-web does not start"
        found = re.search(rb":(\d+)", self._process.stdout.readline())
        assert found
        self.port = int(found[1])

    def stop(self) -> int:
        assert self._process
        assert self._process.stdout
        self._process.send_signal(signal.SIGTERM)
        status = self._process.wait(timeout=30)
        self._process.stdout.close()
        return status

    def hooks(self, count: int) -> list[list[str]]:
        """Return the arguments that hooks were called with, once there are so many calls."""
        deadline = time.monotonic() + 30
        while True:
            found = (
                [json.loads(line) for line in self.hook_calls.read_text().splitlines()]
                if self.hook_calls.exists()
                else []
            )
            if len(found) >= count or time.monotonic() > deadline:
                return found
            time.sleep(0.05)

    def pragma(self, name: str) -> int:
        with closing(sqlite3.connect(self.root / "builder.sqlite3")) as connection:
            return int(connection.execute(f"PRAGMA {name}").fetchone()[0])

    def schema(self) -> list[str]:
        """Return what made the original's tables, in one form of spaces."""
        with closing(sqlite3.connect(self.root / "builder.sqlite3")) as connection:
            found = [sql for (sql,) in connection.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL")]
        plain = [re.sub(r"\s+", " ", sql).replace("( ", "(").replace(" )", ")") for sql in found]
        return sorted(sql for sql in plain if "web_" not in sql and "sqlite_" not in sql)

    def request(
        self, method: str, path: str, body: bytes | Iterator[bytes] | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        with closing(connection):
            connection.putrequest(method, path, skip_accept_encoding=True)
            for key, value in (headers or {}).items():
                connection.putheader(key, value)
            if isinstance(body, bytes):
                connection.putheader("Content-Length", str(len(body)))
                connection.endheaders(body)
            elif body is not None:
                connection.putheader("Transfer-Encoding", "chunked")
                connection.endheaders(body, encode_chunked=True)
            else:
                connection.endheaders()
            answer = connection.getresponse()
            return answer.status, {key.lower(): value for key, value in answer.getheaders()}, answer.read()


def body_of(step: Step) -> bytes | None:
    body = step.get("body")
    if body is None:
        return None
    if "text" in body:
        return str(body["text"]).encode()
    path = UPLOADS / str(body["upload"])
    data = path.read_bytes()
    kept: int = body.get("cut", len(data))
    return data[:kept] + bytes.fromhex(body.get("append", ""))


def fill(value: str, captured: dict[str, str]) -> str:
    for key, found in captured.items():
        value = value.replace("{" + key + "}", found)
    return value


def headers_of(step: Step, captured: dict[str, str]) -> dict[str, str]:
    headers = {key: fill(value, captured) for key, value in step.get("send", {}).items()}
    if step.get("accept") == "json":
        headers["accept"] = "application/json"
    elif step.get("accept") == "html":
        headers["accept"] = "text/html"
    if "auth" in step:
        headers["authorization"] = "Basic " + b64encode(":".join(step["auth"]).encode()).decode()
    return headers


def replay_request(site: Site, step: Step) -> list[str]:
    """Make a request; return what differs from what is right."""
    body = body_of(step)
    answer = site.request(
        step["method"],
        fill(step["path"], site.captured),
        iter([body[:1000], body[1000:]]) if body is not None and step.get("chunked") else body,
        headers_of(step, site.captured),
    )
    return judge(site.captured, step, *answer)


def judge(captured: dict[str, str], step: Step, status: int, headers: dict[str, str], content: bytes) -> list[str]:
    """Return what differs from what is right, and capture what later steps need."""
    keys: tuple[str, ...] = ("status", "headers", "json", "text", "execution", "tar", "page")
    expected: Step = {key: step[key] for key in keys if key in step}
    if "expected" in step:
        # what is right replaces what was recorded: of a fault, only the rest of a good answer stays
        expected = step["expected"]
    for name, where in step.get("capture", {}).items():
        captured[name] = captured_value(where, headers, content)
    problems = list(compare(captured, step, expected, status, headers, content))
    return [f"{step['method']} {step['path']} ({step.get('accept')}): {problem}" for problem in problems]


def captured_value(where: str, headers: dict[str, str], content: bytes) -> str:
    kind, _, key = where.partition(":")
    if kind == "header":
        return headers[key]
    value = json.loads(content)
    for part in key.split("."):
        value = value[int(part)] if isinstance(value, list) else value[part]
    return str(value)


def compare(
    captured: dict[str, str], step: Step, expected: Step, status: int, headers: dict[str, str], content: bytes
) -> Iterator[str]:
    right = expected.get("status")
    if status != right and not (isinstance(right, list) and status in right):
        yield f"status {status} instead of {right}: {content[:200]!r}"
        return
    if isinstance(right, list) and status != right[0]:
        return
    for key, value in expected.get("headers", {}).items():
        if value == "any" and headers.get(key):
            continue
        if headers.get(key) != fill(value, captured):
            yield f"{key} is {headers.get(key)!r} instead of {fill(value, captured)!r}"
    if "json" in expected:
        found = json.loads(content)
        for key in step.get("mask", []):
            found[key] = "*"
        wanted = json.loads(fill(json.dumps(expected["json"]), captured))
        # of what was recorded the order of keys counts as well
        if found != wanted or ("expected" not in step and json.dumps(found) != json.dumps(wanted)):
            yield f"JSON is {json.dumps(found)[:1500]}\n  instead of {json.dumps(wanted)[:1500]}"
    if "json_subset" in expected:
        found = json.loads(content)
        if not is_subset(expected["json_subset"], found):
            yield f"JSON {json.dumps(found)[:600]} lacks some of {json.dumps(expected['json_subset'])[:600]}"
    if "jobs" in expected and not {job["name"] for job in json.loads(content)["jobs"]} >= set(expected["jobs"]):
        yield f"jobs are {content[:300]!r} instead of {expected['jobs']}"
    if "text" in expected and step.get("accept") != "html" and "html" not in headers.get("content-type", ""):
        wanted = expected["text"]
        if step["path"].partition("?")[0] not in FREE_TEXT and hashlib.sha256(content).hexdigest() != wanted["sha256"]:
            yield f"text is {content[:300]!r} instead of {wanted}"
    if "page" in expected:
        yield from compare_page(expected["page"], content.decode())
    if "execution" in expected:
        yield from compare_execution(expected["execution"], content)
    if "tar" in expected:
        with tarfile.open(fileobj=io.BytesIO(gzip.decompress(content))) as archive:
            members = {
                member.name: hashlib.sha256(archive.extractfile(member).read()).hexdigest()  # type: ignore[union-attr]
                for member in archive
            }
        yield from compare_tar(expected["tar"], members)


FREE_TEXT = {"/robots.txt"}
"""Addresses whose text is our own."""


class _Page(HTMLParser):
    """Reads the title of a page, and its links and texts in their order."""

    def __init__(self) -> None:
        super().__init__()
        self.title = ""
        self.links: list[str] = []
        self.texts: list[str] = []
        self._in_title = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._in_title = tag == "title" and not self.title  # others are those of drawings
        if tag == "a":
            self.links.append(dict(attrs).get("href") or "")

    def handle_endtag(self, tag: str) -> None:
        self._in_title = False

    def handle_data(self, data: str) -> None:
        if self._in_title:
            self.title += data
        self.texts.append(data)


_MOVED = {"/console": "/console/view", "/script": "/script/view"}
"""Ends of addresses for which our pages have a page where the original's have plain text, which is there as well."""


_FRAMES = ("/vizdependencies", "/viztreemap")


def compare_page(wanted: Step, html: str) -> Iterator[str]:
    """Yield what a page lacks: its title, links to what it is about, texts that it must have."""
    page = _Page()
    page.feed(html)
    if page.title.strip() not in {wanted["title"].strip(), unquote(wanted["title"]).strip()}:
        yield f"the title is {page.title!r} instead of {wanted['title']!r}"
    links = {unquote(link).removesuffix("/") for link in page.links}
    for link in [*wanted["crumbs"], *(link for section in wanted["sections"] for link in section["links"])]:
        plain = unquote(unquote(link)).removesuffix("/") if "%25" in link else unquote(link).removesuffix("/")
        found = {plain, unquote(link).removesuffix("/")} | {plain + more for end, more in _ends(plain)}
        if link.startswith("#") or link.endswith(_FRAMES):
            continue  # the original has frames for drawings also where there are none
        if not found & {*links, *(unquote(one) for one in links)}:
            yield f"no link to {link}"
    for text in wanted.get("must", []):
        if text not in "".join(page.texts):
            yield f"no text {text!r}"


def _ends(plain: str) -> list[tuple[str, str]]:
    return [(end, more.removeprefix(end)) for end, more in _MOVED.items() if plain.endswith(end)]


def compare_tar(wanted: Any, members: dict[str, str]) -> Iterator[str]:
    if wanted != members:
        yield f"tar has {members} instead of {wanted}"


def compare_execution(wanted: Step, content: bytes) -> Iterator[str]:
    found = execution.decode(content)
    console = b"".join(b"%d %b\n" % (line.delta // 1_000_000, line.line) for line in found.console)
    if wanted["console"]["sha256_of_ms_and_text"] != hashlib.sha256(console).hexdigest():
        yield f"another console of {len(found.console)} lines: {console[:300]!r}"
    summary = {
        "job": found.job.name,
        "script": hashlib.sha256(found.job.script).hexdigest(),
        "platform": found.job.platform,
        "uuid": str(found.uuid),
        "artifacts": [
            [file.path, len(file.content), hashlib.sha256(file.content).hexdigest()] for file in found.artifacts
        ],
    }
    for key, value in summary.items():
        if wanted[key] != value:
            yield f"{key} is {value} instead of {wanted[key]}"


def is_subset(wanted: Any, found: Any) -> bool:
    if isinstance(wanted, dict):
        return isinstance(found, dict) and all(
            key in found and is_subset(value, found[key]) for key, value in wanted.items()
        )
    return bool(wanted == found)


def database(root: Path) -> dict[str, list[dict[str, Any]]]:
    with closing(sqlite3.connect(root / "builder.sqlite3")) as connection:
        connection.row_factory = sqlite3.Row
        names = [
            row[0]
            for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            if not row[0].startswith(("sqlite_", "web_"))
        ]
        return {
            name: [
                {key: row[key].hex() if isinstance(row[key], bytes) else row[key] for key in row.keys()}  # noqa: SIM118
                for row in connection.execute(f"SELECT * FROM {name} ORDER BY id")
            ]
            for name in names
        }


def files(root: Path) -> dict[str, list[Any]]:
    found = {}
    for folder, _, names in os.walk(root):
        for name in names:
            path = Path(folder) / name
            relative = str(path.relative_to(root))
            if not relative.startswith(("builder.sqlite3", "_cache", "_staging")):
                data = path.read_bytes()
                found[relative] = [len(data), hashlib.sha256(data).hexdigest()]
    return found
