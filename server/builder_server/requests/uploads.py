"""Requests about uploads."""

import trio

from builder.extension.uploads import (
    CountUploads,
    DropUpload,
    ListUploads,
    RetryUploads,
    UploadsCounted,
    UploadsListed,
    UploadsRetried,
)
from builder.model import printable
from builder_server.errors import CommandRefused
from builder_server.requests import Asked, Handlers
from builder_server.requests.builds import PIECE_TIMEOUT, USUAL_COUNT, find_build, owner_of
from builder_server.results import FILE_NAME, directory_of


async def list_uploads(asked: Asked, request: ListUploads) -> None:
    """Tell a page of uploads."""
    request.check()

    async def make() -> UploadsListed:
        return UploadsListed(uploads=tuple(await asked.store.uploads(request, asked.uploader.names)))

    await asked.channel.send_reply(make, is_large=request.count > USUAL_COUNT)


async def count_uploads(asked: Asked, _request: CountUploads) -> None:
    """Tell how uploads stand."""
    await asked.channel.send(UploadsCounted(receivers=await asked.store.count_uploads(asked.uploader.names)))


async def retry_uploads(asked: Asked, request: RetryUploads) -> None:
    """Have uploads tried again now, by the servers whose disks have what is to be uploaded."""
    if request.target is not None:
        await _retry(asked, request.target)
        return
    counts = []
    if asked.uploader.names:
        counts.append(await asked.store.retry_uploads(asked.uploader.names))
        asked.uploader.wake()
    if not asked.is_relayed:
        told, _ = await asked.farm.ask_others(asked.client, request)  # they are to begin, and may have other receivers
        counts += [reply.count for reply in told.values() if isinstance(reply, UploadsRetried)]
    if not counts:
        _check_uploads(asked)
    await asked.channel.send(UploadsRetried(count=max(counts)))


async def _retry(asked: Asked, target: str) -> None:
    entry = await find_build(asked, target)
    assert entry.uuid, "it is a build"
    if owner := asked.elsewhere(await owner_of(asked, entry.uuid)):
        what, there = f"the record of {entry.uuid}", RetryUploads(target=str(entry.uuid))
        await asked.farm.pass_on(owner, asked.client, there, asked.channel, what, PIECE_TIMEOUT)
        return
    _check_uploads(asked)
    path = directory_of(asked.attempts.recorder.data_dir, entry.name, entry.uuid) / FILE_NAME
    if entry.finished and entry.upload not in ("uploaded", "done") and not await trio.to_thread.run_sync(path.exists):
        raise CommandRefused(f"{entry.uuid} can't be uploaded: its record {path} is gone")
    count = await asked.store.retry_upload(entry.uuid, asked.uploader.names)
    asked.uploader.wake()
    await asked.channel.send(UploadsRetried(count=count))


def _check_uploads(asked: Asked) -> None:
    if asked.uploader.names:
        return
    if asked.store.database.is_shared:
        raise CommandRefused(
            f"the server {printable(asked.store.owner)} uploads nothing: it was started without --upload"
        )
    raise CommandRefused("this server uploads nothing: it was started without --upload")


async def drop_upload(asked: Asked, request: DropUpload) -> None:
    """Have a build uploaded nowhere any more."""
    entry = await find_build(asked, request.target)
    assert entry.uuid, "it is a build"
    await asked.store.drop_upload(entry.uuid)


HANDLERS: Handlers = {
    ListUploads: list_uploads,
    CountUploads: count_uploads,
    RetryUploads: retry_uploads,
    DropUpload: drop_upload,
}
"""What answers them."""
