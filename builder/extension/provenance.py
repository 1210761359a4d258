"""Messages about what a server has signed, tags 200 to 209."""

from typing import ClassVar
from uuid import UUID

from attrs import frozen

from builder.extension import Reply, Request
from builder.messages import KIB, message
from builder.provenance import MAX_ENVELOPE


@message
@frozen(kw_only=True)
class ShowProvenance(Request):
    """Show what the server has signed of a build."""

    tag: ClassVar[int] = 200
    uuid: UUID


@message
@frozen(kw_only=True)
class ProvenanceShown(Reply):
    """The envelope, as JSON; None where the server signs nothing of that build: it runs, was lost, or was imported."""

    tag: ClassVar[int] = 201
    max_size: ClassVar[int] = MAX_ENVELOPE + 64 * KIB
    envelope: bytes | None = None
