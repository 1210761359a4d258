"""Uploads finished executions to a builder-web, in their own time: no worker waits, nothing is held in memory.

The database says what is pending, so that an upload which a stop of the server interrupted begins again; the receiver
answers 409 to what it has already. A refused upload stays on disk as ``full`` and is said so in the log.
"""

import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import trio
from attrs import define, field

from builder import __version__
from builder.errors import BuilderError
from builder.model import printable
from builder.runtime.changes import Change
from builder_server.logs import describe
from builder_server.results import FILE_NAME, build_dir
from builder_server.store import Build, Store, StoreError

logger = logging.getLogger(__name__)

CHUNK_SIZE = 512 * 1024
"""Bytes read from the file and sent at once."""

TIMEOUT = httpx.Timeout(connect=30, write=300, read=1800, pool=None)
"""Seconds: for the connection, for a chunk, and for the answer, before which builder-web hashes and unpacks it all."""

PARALLEL = 2
"""Uploads at once: one large execution must not hold up all the small ones."""

MAX_REDIRECTS = 5

RETRY_DATABASE = 10.0
"""Seconds until pending uploads are looked up again after the database could not be read."""


class UploadFailed(BuilderError):
    """The receiver did not take the execution; the text says why."""


class InvalidUploadURL(BuilderError):
    """The URL to upload to is none."""

    exit_code = 2


@define(eq=False)
class Uploader:
    """Posts what is pending. ``url`` is without user and password, which are in ``auth``."""

    store: Store
    data_dir: Path
    url: httpx.URL
    auth: httpx.BasicAuth | None
    _work: Change = field(factory=Change)

    @classmethod
    def to(cls, url: str, store: Store, data_dir: Path) -> "Uploader":
        """Return an uploader for a URL as an operator writes it. Raises InvalidUploadURL."""
        try:
            parsed = httpx.URL(url)
        except httpx.InvalidURL as error:
            raise InvalidUploadURL("the upload URL is malformed") from error  # without it: it may hold a password
        if parsed.scheme not in ("http", "https") or not parsed.host:
            raise InvalidUploadURL("the upload URL must begin with http:// or https:// and name a host")
        if parsed.port is not None and not 1 <= parsed.port <= 65535:
            raise InvalidUploadURL("the port of the upload URL must be a number from 1 to 65535")
        auth = httpx.BasicAuth(parsed.username, parsed.password) if parsed.userinfo else None
        return cls(store, data_dir, parsed.copy_with(userinfo=b""), auth)

    def wake(self) -> None:
        """Say that a build was finished."""
        self._work.announce()

    async def run(self) -> None:
        """Upload what is pending, for ever."""
        limit = trio.CapacityLimiter(PARALLEL)
        under_way: set[Any] = set()
        async with httpx.AsyncClient(timeout=TIMEOUT, follow_redirects=False) as client, trio.open_nursery() as nursery:
            while True:
                work = self._work.next
                try:
                    for build in await self.store.uploads("uploaded"):
                        await self._remove(build)
                    for build in await self.store.uploads("pending"):
                        if build.uuid not in under_way:
                            under_way.add(build.uuid)
                            nursery.start_soon(self._upload, client, build, limit, under_way)
                except StoreError as error:
                    logger.error("pending uploads can't be found, trying again: %s", error)
                    await trio.sleep(RETRY_DATABASE)
                    continue
                await work.wait()

    async def _upload(
        self, client: httpx.AsyncClient, build: Build, limit: trio.CapacityLimiter, under_way: set[Any]
    ) -> None:
        path = build_dir(self.data_dir, build) / FILE_NAME
        try:
            async with limit:
                status = await self._post(client, path)
                logger.info("%s uploaded (HTTP %d)", describe(build), status)
                await self.store.set_upload(build.uuid, "uploaded")
                await self._remove(build)
        except (UploadFailed, httpx.HTTPError, OSError) as error:
            reason = str(error) or type(error).__name__
            if not isinstance(error, UploadFailed):
                reason = f"{_shown(self.url)}: {reason}"
            logger.error("%s was not uploaded, it stays at %s: %s", describe(build), path, reason)
            await self._note_failure(build)
        except StoreError as error:
            logger.error("%s: its upload can't be noted: %s", describe(build), error)
        except Exception:
            # a fault of ours or of the HTTP library, told in full: the server has other things to do
            logger.exception("%s was not uploaded, it stays at %s", describe(build), path)
            await self._note_failure(build)
        finally:
            under_way.discard(build.uuid)

    async def _note_failure(self, build: Build) -> None:
        try:
            await self.store.set_upload(build.uuid, "failed")
        except StoreError as error:
            logger.error("%s: its upload can't be noted: %s", describe(build), error)

    async def _remove(self, build: Build) -> None:
        """Remove the local copy of what the receiver has. Raises StoreError."""
        path = build_dir(self.data_dir, build) / FILE_NAME
        try:
            await trio.to_thread.run_sync(lambda: path.unlink(missing_ok=True))
        except OSError as error:
            logger.error("%s was uploaded, but %s can't be removed: %s", describe(build), path, error.strerror)
            return
        await self.store.set_upload(build.uuid, "done")

    async def _post(self, client: httpx.AsyncClient, path: Path) -> int:
        """Post the file and return the status. Raises UploadFailed, httpx.HTTPError, OSError."""
        url, auth = self.url, self.auth
        for _ in range(MAX_REDIRECTS + 1):
            async with await trio.open_file(path, "rb", buffering=0) as file:
                size = (await trio.to_thread.run_sync(path.stat)).st_size
                request = httpx.Request(
                    "POST",
                    url,
                    stream=_Chunks(file, size),
                    headers={
                        "Host": url.netloc.decode("ascii"),
                        "User-Agent": f"builder-server/{__version__}",
                        "Content-Length": str(size),
                        "Connection": "close",
                    },
                    extensions={"timeout": TIMEOUT.as_dict()},
                )
                response = await client.send(request, auth=auth, stream=True)
                await response.aclose()
            if not response.has_redirect_location:
                if response.is_success or response.status_code == httpx.codes.CONFLICT:
                    return response.status_code
                reason = printable(response.reason_phrase[:200])
                raise UploadFailed(f"{_shown(url)} answered HTTP {response.status_code} {reason}")
            # posted again, as the original does; a password is only for the host it was given for
            try:
                target = url.join(response.headers["Location"])
            except httpx.InvalidURL as error:
                raise UploadFailed(f"{_shown(url)} redirects to a malformed URL") from error
            if (target.scheme, target.host, target.port) != (url.scheme, url.host, url.port):
                auth = None
            url = target.copy_with(userinfo=b"")
        raise UploadFailed(f"{_shown(self.url)} redirects more than {MAX_REDIRECTS} times")


def _shown(url: httpx.URL) -> str:
    """Return what a log may say of a URL: a query can be as secret as a password."""
    return printable(str(url.copy_with(userinfo=b"", query=None, fragment=None)))


@define(eq=False)
class _Chunks(httpx.AsyncByteStream):
    """The file as the HTTP library takes it: no generator, which an upload that breaks off would leave behind."""

    _file: "trio._file_io.AsyncIOWrapper[Any]"
    _left: int

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if not self._left:
            raise StopAsyncIteration
        data: bytes = await self._file.read(min(CHUNK_SIZE, self._left))
        if not data:
            raise UploadFailed("the file became shorter while it was read")
        self._left -= len(data)
        return data
