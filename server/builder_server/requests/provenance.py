"""The request for what was signed of a build."""

from builder.extension.provenance import ProvenanceShown, ShowProvenance
from builder.reasons import reason_of
from builder_server.attesting import NotSigned
from builder_server.errors import CommandRefused
from builder_server.requests import Asked, Handlers


async def show(asked: Asked, request: ShowProvenance) -> None:
    """Send the envelope of a build, which is made now if it is still to be."""
    build = await asked.store.find_head(request.uuid)
    if build is None:
        raise CommandRefused(f"there is no build {request.uuid}")

    async def make() -> ProvenanceShown:
        try:
            return ProvenanceShown(envelope=await asked.signer.envelope(build.uuid, build.name))
        except (NotSigned, OSError) as error:
            raise CommandRefused(f"{request.uuid} is not signed yet: {reason_of(error)}") from error

    await asked.channel.send_reply(make, is_large=True)


HANDLERS: Handlers = {ShowProvenance: show}
