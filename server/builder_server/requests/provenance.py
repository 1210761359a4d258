"""The request for what was signed of a build."""

from builder.extension.provenance import ProvenanceShown, ShowProvenance
from builder.reasons import reason_of
from builder_server.attesting import NotSigned
from builder_server.errors import CommandRefused
from builder_server.requests import Asked, Handlers

TIMEOUT = 300.0
"""Seconds in which a client takes an envelope."""


async def show(asked: Asked, request: ShowProvenance) -> None:
    """Send the envelope of a build, which is made now if it is still to be."""
    build = await asked.store.find_head(request.uuid)
    if build is None:
        raise CommandRefused(f"there is no build {request.uuid}")
    if owner := asked.elsewhere(build.owner):
        await asked.farm.pass_on(
            owner, asked.client, request, asked.channel, f"what was signed of {build.uuid}", TIMEOUT
        )
        return

    async def make() -> ProvenanceShown:
        try:
            return ProvenanceShown(envelope=await asked.signer.envelope(build.uuid, build.name))
        except (NotSigned, OSError) as error:
            raise CommandRefused(f"{request.uuid} is not signed yet: {reason_of(error)}") from error

    await asked.channel.send_reply(make, is_large=True)


HANDLERS: Handlers = {ShowProvenance: show}
