"""Builds come in: as executions, or a binary alone."""

import errno
from collections.abc import AsyncGenerator
from contextlib import aclosing
from uuid import uuid4

import trio
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from builder.errors import InvalidName, ProtocolError
from builder.model import Exited
from builder.provenance import PROVENANCE_HEADER
from builder.runtime.database import DiskFull
from builder_web import access
from builder_web.access import TooManyFailures
from builder_web.directory import check_job
from builder_web.receiving.binary import BinaryReception
from builder_web.receiving.decoding import Decoder, NotDecodable, TooLarge
from builder_web.receiving.execution import Reception, check_platform
from builder_web.receiving.recording import Duplicate, Forbidden
from builder_web.store.records import NewBuild, User
from builder_web.views.answers import Refused
from builder_web.views.site import Site, site_of

PIECE_SIZE = 1024 * 1024
"""Bytes that are taken from a body before a thread hashes and writes them."""

STALLED = 120.0
"""Seconds without a byte after which an upload is given up."""

_UNAUTHORIZED = "Unauthorized!"
_FULL = "The disk is full"
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


async def upload(request: Request) -> Response:
    """Take an execution."""
    site = site_of(request)
    user = await authenticate(site, request)
    reception = Reception(site.directory)
    return await _receive(site, request, user, reception)


async def upload_binary(request: Request) -> Response:
    """Take a binary that was built elsewhere: it becomes a build of its own."""
    site = site_of(request)
    user = await authenticate(site, request)
    job, platform = request.path_params["job"], request.path_params["platform"]
    name = request.query_params.get("binary_name", f"{job}.bin")
    try:
        check_job(job)
        check_platform(platform)
    except InvalidName as error:
        raise Refused(400, str(error)) from error
    if name in ("", ".", "..") or "/" in name or not name.isprintable():
        raise Refused(400, "Bad binary name provided.")
    now = site.now()
    reception = BinaryReception(
        site.directory,
        uuid=str(uuid4()),
        job=job,
        platform=platform,
        path=f"bin/{name}",
        now=now,
        result=Exited(code=0),
    )
    return await _receive(site, request, user, reception)


async def authenticate(site: Site, request: Request) -> User:
    """Return who uploads. Raises Refused."""
    address = request.client.host if request.client else ""
    try:
        user = await site.access.check(access.parse(request.headers.get("authorization")), address)
    except TooManyFailures as error:
        raise Refused(429, str(error), {"retry-after": f"{access.FORGET:.0f}"}) from error
    if user is None:
        raise Refused(401, _UNAUTHORIZED, {"www-authenticate": 'Basic realm="builder-web"'})
    return user


async def _receive(site: Site, request: Request, user: User, reception: Reception | BinaryReception) -> Response:
    try:
        new = await _take(site, request, user, reception)
        staged = reception.staging
        assert staged
        await site.recorder.record(staged, new, user)
    except BaseException as error:
        reception.close()
        if reception.staging is not None:
            await site.recorder.discard(reception.staging)
        raise _answer(error, _also(site, reception)) from error
    return Response(status_code=201, headers=_also(site, reception))


def _also(site: Site, reception: Reception | BinaryReception) -> dict[str, str]:
    """Return where what was signed of the build is taken: a server of ours has that, others look for no such header."""
    if not isinstance(reception, Reception) or reception.head is None:
        return {}
    return {PROVENANCE_HEADER: site.links.provenance(reception.head.job, reception.head.uuid)}


def _answer(error: BaseException, headers: dict[str, str]) -> BaseException:
    match error:
        case Forbidden():  # other credentials would not help: nothing is asked for
            return Refused(401, _UNAUTHORIZED)
        case Duplicate():
            return Refused(409, str(error), headers)
        case ProtocolError() | InvalidName() | NotDecodable():
            return Refused(400, f"Bad upload: {error}")
        case TooLarge():
            return Refused(413, str(error))
        case DiskFull():
            return Refused(507, _FULL)
        case OSError() if error.errno in _NO_ROOM:
            return Refused(507, _FULL)
    return error


async def _take(site: Site, request: Request, user: User, reception: Reception | BinaryReception) -> NewBuild:
    """Take a body, piece by piece: the kernel receives the next one while a thread writes."""
    announced = int(request.headers.get("content-length", 0))
    decoder = Decoder(request.headers.get("content-encoding"), site.options.max_upload, announced=announced)
    is_checked = await _check(site, user, reception)
    length, received = request.headers.get("content-length"), 0
    async with aclosing(pieces_of(request)) as pieces:
        async for piece in pieces:
            await trio.to_thread.run_sync(_feed, decoder, reception, piece, limiter=site.writers)
            received += len(piece)
            if not is_checked and str(received) != length:  # what is there as a whole is checked when it is recorded
                is_checked = await _check(site, user, reception)
    return await trio.to_thread.run_sync(_finish, decoder, reception, limiter=site.writers)


async def _check(site: Site, user: User, reception: Reception | BinaryReception) -> bool:
    """Refuse what is known already not to be taken, and return whether enough is known to say so."""
    if reception.head is None:
        return False
    await site.recorder.check(reception.head.job, reception.head.uuid, user)
    return True


def _feed(decoder: Decoder, reception: Reception | BinaryReception, piece: bytes) -> None:
    for data in decoder.feed(piece):
        reception.feed(data)


def _finish(decoder: Decoder, reception: Reception | BinaryReception) -> NewBuild:
    decoder.finish()
    return reception.finish()


async def pieces_of(request: Request) -> AsyncGenerator[bytes, None]:
    """Return the body of a request in pieces; the first one small, so that what can't be taken is known early."""
    held: list[bytes] = []
    size, wanted = 0, 1
    async with aclosing(request.stream()) as stream:
        while (chunk := await _next(stream)) is not None:
            held.append(chunk)
            size += len(chunk)
            if size >= wanted:
                yield b"".join(held)
                held, size, wanted = [], 0, PIECE_SIZE
    if held:
        yield b"".join(held)


async def _next(stream: AsyncGenerator[bytes, None]) -> bytes | None:
    try:
        with trio.fail_after(STALLED):
            return await anext(stream, None)
    except ClientDisconnect as error:
        raise ProtocolError("the connection ended before the upload") from error
    except trio.TooSlowError:
        raise Refused(408, f"Nothing came for {STALLED:.0f} s") from None
