"""What all addresses share."""

import datetime as dt
from collections.abc import Callable
from typing import cast

import trio
from attrs import field, frozen
from starlette.requests import Request

from builder.model import Instant
from builder.provenance.keys import PublicKey
from builder_web.access import Access
from builder_web.directory import DataDirectory
from builder_web.pages.links import Links
from builder_web.receiving.recording import Recorder
from builder_web.store.store import Store
from builder_web.views.kept import KeptAnswers

MAX_WRITERS = 8
"""Threads that write uploads: more make no disk faster."""


@frozen(kw_only=True)
class Options:
    """What an operator chooses."""

    expired_after: dt.timedelta | None
    """Jobs that were not built successfully for so long are not on the first page; None: all are."""
    max_upload: int
    """Bytes of an upload, once it is decompressed."""
    keys: tuple[PublicKey, ...] = ()
    """What provenance is verified with."""


@frozen(kw_only=True)
class Site:
    """The site as the views see it."""

    directory: DataDirectory
    store: Store
    access: Access
    recorder: Recorder
    options: Options
    links: Links
    now: Callable[[], Instant]
    kept: KeptAnswers = field(factory=KeptAnswers)
    writers: trio.CapacityLimiter = field(factory=lambda: trio.CapacityLimiter(MAX_WRITERS))
    """The threads that hash and write what is uploaded: pages need not wait for these."""


def site_of(request: Request) -> Site:
    """Return the site that a request was made to."""
    return cast("Site", request.app.state.site)
