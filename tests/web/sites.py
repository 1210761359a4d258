"""Sites in the process of a test: the real application, database and files, without a socket."""

import json
import shutil
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import trio
from attrs import define, frozen
from starlette.types import ASGIApp

from builder.model import Instant
from builder_web import access, application, server
from builder_web.directory import DataDirectory
from builder_web.receiving.recording import Recorder
from builder_web.server import Settings
from builder_web.store import opening, users
from builder_web.store.records import NewBuild
from builder_web.store.store import Store
from builder_web.views.site import Site

UPLOADS = Path(__file__).parent / "data" / "uploads"
PASSWORDS = {"admin": "correct horse", "limited": "battery:staple"}
NOW = Instant(1_795_000_000_000)
"""2026-11-18T03:06:40Z."""

_template: list[Path] = []


def authorization(user: str, password: str | None = None) -> dict[str, str]:
    password = PASSWORDS[user] if password is None else password
    return {"authorization": "Basic " + b64encode(f"{user}:{password}".encode()).decode()}


def make_directory(root: Path) -> DataDirectory:
    """Return a new data directory with both users, restricted and not."""
    directory = DataDirectory(root)
    root.mkdir(exist_ok=True)
    if _template and _template[0].exists():
        shutil.copy(_template[0], directory.database)
        return directory
    with opening.writing(directory.database, new=True) as connection:
        for name, password in PASSWORDS.items():
            hashed = access.new_password(
                password.encode(), n=2, r=1, p=1
            )  # else each site takes 50 ms for its first upload
            users.add(connection, name, hashed, restricted=name == "limited")
    kept = root.parent / f"{root.name}-template.sqlite3"
    shutil.copy(directory.database, kept)
    _template[:] = [kept]
    return directory


@frozen(kw_only=True)
class Answer:
    """What a site answered."""

    status: int
    headers: dict[str, str]
    content: bytes

    def json(self) -> Any:
        return json.loads(self.content)

    @property
    def text(self) -> str:
        return self.content.decode()


@frozen
class Client:
    """Asks an application as a server would, and reads an answer to its end."""

    application: ASGIApp

    async def request(
        self, method: str, target: str, *, content: bytes | None = None, headers: dict[str, str] | None = None
    ) -> Answer:
        path, _, query = target.partition("?")
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "scheme": "http",
            "method": method,
            "path": unquote(path),
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": [
                (key.lower().encode(), value.encode())
                for key, value in {"host": "builds.example.org", **(headers or {})}.items()
            ],
            "client": ("192.0.2.1", 50000),
            "server": ("builds.example.org", 80),
        }
        messages = iter([{"type": "http.request", "body": content or b"", "more_body": False}])
        sent: list[Any] = []

        async def receive() -> Any:
            found = next(messages, None)
            if found is None:
                await trio.sleep_forever()
            return found

        async def send(message: Any) -> None:
            await trio.lowlevel.checkpoint()
            sent.append(message)

        await self.application(scope, receive, send)
        (start,) = [message for message in sent if message["type"] == "http.response.start"]
        return Answer(
            status=start["status"],
            headers={key.decode(): value.decode("latin-1") for key, value in start["headers"]},
            content=b"".join(message.get("body", b"") for message in sent),
        )

    async def get(self, target: str, **headers: str) -> Answer:
        return await self.request("GET", target, headers=headers)


@define
class InProcess:
    """A site, and what asks it."""

    directory: DataDirectory
    store: Store
    client: Client
    recorded: list[NewBuild]
    site: Site
    settings: Settings

    async def upload(self, name: str, user: str = "admin") -> Answer:
        content = (UPLOADS / name).read_bytes()
        return await self.client.request("POST", "/upload", content=content, headers=authorization(user))


@asynccontextmanager
async def open_site(directory: DataDirectory, *, now: Instant = NOW, **options: Any) -> AsyncIterator[InProcess]:
    """Open a site on a data directory."""
    store = Store.open(directory)
    recorded: list[NewBuild] = []
    recorder = Recorder(directory, store, recorded.append)
    settings = Settings(
        hosts=(),
        port=0,
        directory=directory.root,
        configuration=directory.root,
        **options,
    )
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.database.run)
            await recorder.recover()
            site = server.make_site(directory, store, recorder, settings, now=lambda: now)
            yield InProcess(directory, store, Client(application.make(site)), recorded, site, settings)
            nursery.cancel_scope.cancel()
    finally:
        store.close()
