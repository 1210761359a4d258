"""The builder-web that takes executions: one is posted to it, by whatever proxy and redirects lead there."""

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import httpx
import trio
from attrs import define, frozen

from builder import __version__
from builder.errors import BuilderError
from builder.model import printable
from builder.provenance import PROVENANCE_HEADER
from builder.reasons import reason_of
from builder_server import retrying
from builder_server.proxies import Proxies
from builder_server.trust import trusting

CHUNK_SIZE = 512 * 1024
"""Bytes read from the file and sent at once."""

CONNECT_TIMEOUT, TAKE_TIMEOUT, ANSWER_TIMEOUT = 30, 300, 1800
"""Seconds: for the connection, for a chunk, and for the answer, before which builder-web hashes and unpacks it all."""

_TIMEOUT = httpx.Timeout(connect=CONNECT_TIMEOUT, write=TAKE_TIMEOUT, read=ANSWER_TIMEOUT, pool=None)

MAX_REDIRECTS = 5

MAX_RECEIVERS = 8
"""Each takes descriptors that connections then have not."""

_NO_WAY = httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError, httpx.UnsupportedProtocol
"""What happens before anything of an execution is sent."""


class UploadFailed(BuilderError):
    """The receiver did not take the execution, and may do so later; the text says why.

    ``retry_after`` is that field of its answer. ``concerns_all``: any other execution would have fared the same.
    """

    def __init__(self, reason: str, *, retry_after: str = "", concerns_all: bool = False) -> None:
        super().__init__(reason)
        self.retry_after = retry_after
        self.concerns_all = concerns_all


class UploadRefused(BuilderError):
    """The receiver will not take the execution; the text says why."""


class InvalidUploadURL(BuilderError):
    """The URL to upload to is none."""

    exit_code = 2


async def _none() -> Path | None:
    return None


@frozen(kw_only=True)
class Receiver:
    """Where executions are posted to. ``url`` is without user and password, which are in ``auth``.

    ``name`` is what it is called in the database, the log and replies: the URL without whatever may be secret.
    """

    name: str
    url: httpx.URL
    auth: httpx.BasicAuth | None
    _proxies: Proxies
    _trust: ssl.SSLContext

    @classmethod
    def at(cls, url: str, environ: Mapping[str, str]) -> "Receiver":
        """Return the receiver at a URL as an operator writes it. Raises InvalidUploadURL and InvalidEnvironment."""
        try:
            parsed = httpx.URL(url)
        except (httpx.InvalidURL, UnicodeError) as error:
            raise InvalidUploadURL("the upload URL is malformed") from error  # without it: it may hold a password
        if parsed.scheme not in ("http", "https") or not parsed.host:
            raise InvalidUploadURL("the upload URL must begin with http:// or https:// and name a host")
        if parsed.port is not None and not 1 <= parsed.port <= 65535:
            raise InvalidUploadURL("the port of the upload URL must be a number from 1 to 65535")
        auth = httpx.BasicAuth(parsed.username, parsed.password) if parsed.userinfo else None
        return cls(
            name=_shown(parsed),
            url=parsed.copy_with(userinfo=b""),
            auth=auth,
            proxies=Proxies.of(environ),
            trust=trusting(environ),
        )

    async def post(self, path: Path, provenance: Callable[[], Awaitable[Path | None]] = _none) -> int:
        """Post a file and return the status of the answer, which is a success.

        A receiver that has a place for it then gets the file that ``provenance`` returns, if there is one. Raises UploadFailed
        and UploadRefused, OSError if a file can't be read, and what ``provenance`` raises.
        """
        url, auth = self.url, self.auth
        for _ in range(MAX_REDIRECTS + 1):
            response = await self._post_once(url, auth, path)
            if not response.has_redirect_location:
                if _is_taken(response):
                    if target := _provenance_place(url, response):
                        await self._post_provenance(target, auth, await provenance())
                    return response.status_code
                raise _failure(url, response)
            # posted again, as the original does
            try:
                target = url.join(response.headers["Location"])
            except httpx.InvalidURL as error:
                raise UploadFailed(f"{_shown(url)} redirects to a malformed URL", concerns_all=True) from error
            if not keeps_password(url, target):
                auth = None
            url = target.copy_with(userinfo=b"")
        raise UploadFailed(f"{self.name} redirects more than {MAX_REDIRECTS} times", concerns_all=True)

    async def _post_provenance(self, url: httpx.URL, auth: httpx.BasicAuth | None, path: Path | None) -> None:
        if path is not None:
            response = await self._post_once(url, auth, path)
            if not _is_taken(response):
                raise _failure(url, response)

    async def _post_once(self, url: httpx.URL, auth: httpx.BasicAuth | None, path: Path) -> httpx.Response:
        answered = trio.CancelScope()
        async with await trio.open_file(path, "rb", buffering=0) as file:
            size = (await trio.to_thread.run_sync(path.stat)).st_size
            request = httpx.Request(
                "POST",
                url,
                stream=_Chunks(file, size, answered),
                headers={
                    "Host": url.netloc.decode("ascii"),
                    "User-Agent": f"builder-server/{__version__}",
                    "Content-Length": str(size),
                    "Connection": "close",
                },
                extensions={"timeout": _TIMEOUT.as_dict()},
            )
            proxy = self._proxies.for_url(url)
            where = f"{_shown(url)}, through the proxy {_shown(proxy)}" if proxy else _shown(url)
            try:
                with answered:
                    async with self._client(proxy) as client:
                        response = await client.send(request, auth=auth, stream=True)
                        await response.aclose()
                    return response
            except httpx.HTTPError as error:
                raise UploadFailed(f"{where}: {_reason(error)}", concerns_all=isinstance(error, _NO_WAY)) from error
        raise UploadFailed(f"{where}: no answer within {ANSWER_TIMEOUT} s")

    def _client(self, proxy: httpx.URL | None) -> httpx.AsyncClient:
        # trust_env: the library would read the environment anew, and stumble over what others understand
        return httpx.AsyncClient(
            verify=self._trust,
            proxy=httpx.Proxy(proxy, ssl_context=self._trust if proxy.scheme == "https" else None) if proxy else None,
            trust_env=False,
            follow_redirects=False,
        )


def receivers_at(urls: Iterable[str], environ: Mapping[str, str]) -> tuple[Receiver, ...]:
    """Return the receivers at URLs. Raises InvalidUploadURL, also where two can't be told apart, and InvalidEnvironment."""
    found: dict[str, Receiver] = {}
    for url in urls:
        if len(found) == MAX_RECEIVERS:
            raise InvalidUploadURL(f"there are more than {MAX_RECEIVERS} upload URLs")
        receiver = Receiver.at(url, environ)
        if receiver.name in found:
            raise InvalidUploadURL(f"{receiver.name} is given twice as an upload URL: name each receiver once")
        found[receiver.name] = receiver
    return tuple(found.values())


def _is_taken(response: httpx.Response) -> bool:
    """Return whether the receiver has it, or had it already."""
    return response.is_success or response.status_code == httpx.codes.CONFLICT


def _provenance_place(url: httpx.URL, response: httpx.Response) -> httpx.URL | None:
    """Return where the receiver takes what was signed; None if it takes none. It may send a password nowhere else."""
    try:
        target = url.join(response.headers.get(PROVENANCE_HEADER, "")).copy_with(userinfo=b"")
    except httpx.InvalidURL:
        return None
    is_own = (target.scheme, target.host, target.port) == (url.scheme, url.host, url.port)
    return target if is_own and PROVENANCE_HEADER in response.headers else None


def _failure(url: httpx.URL, response: httpx.Response) -> UploadFailed | UploadRefused:
    status = response.status_code
    reason = f"{_shown(url)} answered HTTP {status} {printable(response.reason_phrase[:200])}"
    if retrying.is_refusal(status):
        return UploadRefused(reason)
    retry_after = response.headers.get("Retry-After", "")
    return UploadFailed(reason, retry_after=retry_after, concerns_all=retrying.concerns_all(status))


def keeps_password(url: httpx.URL, target: httpx.URL) -> bool:
    """Say whether a password given for a URL may go to where it redirects.

    It may within the same origin, and to another port of the same host if it was sent in the clear before and is
    encrypted now.
    """
    if target.host != url.host:
        return False
    return (target.scheme, target.port) == (url.scheme, url.port) or (url.scheme, target.scheme) == ("http", "https")


def _shown(url: httpx.URL) -> str:
    """Return what a log may say of a URL: a query can be as secret as a password."""
    return printable(str(url.copy_with(userinfo=b"", query=None, fragment=None)))


def _reason(error: httpx.HTTPError) -> str:
    match error:
        case httpx.ConnectTimeout():
            return f"no connection within {CONNECT_TIMEOUT} s"
        case httpx.WriteTimeout():
            return f"it took nothing for {TAKE_TIMEOUT} s"
        case httpx.ReadTimeout():
            return f"no answer within {ANSWER_TIMEOUT} s"
    return printable(reason_of(error))


@define(eq=False)
class _Chunks(httpx.AsyncByteStream):
    """The file as the HTTP library takes it: no generator, which an upload that breaks off would leave behind.

    At its end the deadline begins before which the answer is to come as a whole, however often a byte of it does.
    """

    _file: "trio._file_io.AsyncIOWrapper[Any]"
    _left: int
    _answered: trio.CancelScope

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if not self._left:
            self._answered.deadline = trio.current_time() + ANSWER_TIMEOUT
            raise StopAsyncIteration
        data: bytes = await self._file.read(min(CHUNK_SIZE, self._left))
        if not data:
            raise UploadFailed("the file became shorter while it was read")
        self._left -= len(data)
        return data
