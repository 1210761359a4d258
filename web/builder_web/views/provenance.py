"""What servers have signed of builds: it comes in beside an upload, is verified, and goes out as it came.

An upload's answer names the address of its provenance in a header, which no other receiver of executions has.
"""

import functools
import hashlib
from collections.abc import Mapping
from contextlib import aclosing

import trio
from starlette.requests import Request
from starlette.responses import Response

from builder.errors import ProtocolError
from builder.model import printable
from builder.provenance import MAX_ENVELOPE, InvalidProvenance
from builder.provenance.envelope import Envelope
from builder.provenance.keys import PublicKey
from builder.provenance.statement import Statement
from builder.provenance.verification import Verdict, compare, verify
from builder_web.pages import models
from builder_web.store import builds, provenance, users
from builder_web.store.builds import Uploaded
from builder_web.store.records import Build
from builder_web.stored import README
from builder_web.views.answers import NotFound, Refused
from builder_web.views.finding import build_of
from builder_web.views.site import Site, site_of
from builder_web.views.uploads import authenticate, pieces_of

_SAID = {
    Verdict.VALID: models.SignatureState.VALID,
    Verdict.UNKNOWN_KEY: models.SignatureState.UNKNOWN,
    Verdict.OUTSIDE: models.SignatureState.OUTSIDE,
    Verdict.INVALID: models.SignatureState.INVALID,
}


async def receive(request: Request) -> Response:
    """Take the envelope of a build that was uploaded. The first one stays."""
    site = site_of(request)
    user = await authenticate(site, request)
    found = await build_of(request)
    if not await site.store.ask(users.may_upload, user, found.job):
        raise Refused(401, "Unauthorized!")
    data = await _body(request)
    try:
        envelope = await trio.to_thread.run_sync(Envelope.decode, data, limiter=site.writers)
        statement = await trio.to_thread.run_sync(Statement.decode, envelope, limiter=site.writers)
    except InvalidProvenance as error:
        raise Refused(400, f"Bad provenance: {error}") from error
    if str(statement.uuid) != found.uuid or not statement.is_about(statement.uuid, found.job):
        raise Refused(400, "Bad provenance: it is about another build")
    if not await site.store.database.write(functools.partial(provenance.record, this=found, envelope=data)):
        raise Refused(409, "This build has its provenance already")
    return Response(status_code=201)


async def _body(request: Request) -> bytes:
    length = request.headers.get("content-length", "")
    if request.headers.get("content-encoding", "identity") != "identity":
        raise Refused(400, "Bad provenance: it must not be compressed")
    if length.isascii() and length.isdigit() and int(length[:20]) > MAX_ENVELOPE:
        raise Refused(413, f"More than {MAX_ENVELOPE} bytes")
    data = bytearray()
    try:
        async with aclosing(pieces_of(request)) as pieces:
            async for piece in pieces:
                data += piece
                if len(data) > MAX_ENVELOPE:
                    raise Refused(413, f"More than {MAX_ENVELOPE} bytes")
    except ProtocolError as error:
        raise Refused(400, f"Bad provenance: {error}") from error
    return bytes(data)


async def send(request: Request) -> Response:
    """Answer with the envelope of a build, as it came."""
    found = await build_of(request)
    envelope = await site_of(request).store.ask(provenance.find, found)
    if envelope is None:
        raise NotFound("Nothing was signed of this build, or it did not come along.", job=found.job)
    headers = {
        "content-disposition": f'attachment; filename="{found.uuid}.provenance.json"',
        "content-security-policy": "sandbox; default-src 'none'",
    }
    return Response(envelope, media_type="application/json", headers=headers)


async def shown(site: Site, found: Build) -> models.Provenance | None:
    """Return what a page says of the provenance of a build."""
    envelope = await site.store.ask(provenance.find, found)
    if envelope is None:
        return None
    uploaded = await site.store.ask(builds.uploaded, found)
    return await trio.to_thread.run_sync(_judge, envelope, _hashes(uploaded), site.options.keys)


def _hashes(uploaded: Uploaded) -> dict[str, bytes]:
    hashes = {file.path: file.digest for file in uploaded.artifacts}
    if uploaded.readme is not None:
        hashes[README] = hashlib.sha256(uploaded.readme.content).digest()
    return hashes


def _judge(data: bytes, hashes: Mapping[str, bytes], keys: tuple[PublicKey, ...]) -> models.Provenance:
    envelope = Envelope.decode(data)  # it was read when it came
    statement = Statement.decode(envelope)
    verified = verify(envelope, statement, keys)
    ids = tuple(printable(key) for key in verified.keys)
    differences = compare(statement, hashes)
    first = next(iter((*differences.changed, *differences.missing, *differences.extra)), None)
    return models.Provenance(
        signature=_SAID[verified.verdict],
        keys=ids,
        differs=first if first is not None else "" if differences else None,
        has_keys=bool(keys),
    )
