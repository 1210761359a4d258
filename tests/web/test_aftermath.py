"""What follows an upload in the background, so that no page has to wait for it."""

from pathlib import Path

import trio
from attrs import field, frozen
from bodies import body
from sites import authorization, make_directory, open_site

from builder_web.aftermath import Aftermath
from builder_web.hooks import Hooks
from builder_web.store import packages

SWITCH = b'opam-version: "2.0"\nroots: ["hello.1.0"]\ninstalled: ["hello.1.0" "dune.3.17.2"]\n'


@frozen(kw_only=True)
class LastHooks(Hooks):
    """Hooks come last: whoever looks for these has done all else."""

    asked: trio.Semaphore = field(factory=lambda: trio.Semaphore(0))

    def find(self, *, failed: bool) -> list[Path]:
        trio.from_thread.run_sync(self.asked.release)
        return []


async def test_packages_are_read(tmp_path: Path) -> None:
    directory = make_directory(tmp_path / "data")
    async with open_site(directory) as site, trio.open_nursery() as nursery:
        for number in (1, 2):
            content = body(number, artifacts={"bin/hello": b"x", "opam-switch": SWITCH})
            answer = await site.client.request("POST", "/upload", content=content, headers=authorization("admin"))
            assert answer.status == 201
        hooks = LastHooks(configuration=tmp_path, directory=directory)
        worker = Aftermath(site.store, directory, hooks)
        for new in site.recorded:
            worker.begin(new)
        nursery.start_soon(worker.run)
        with trio.fail_after(20):
            for _ in site.recorded:
                await hooks.asked.acquire()
        assert [str(one.package) for one in await site.store.ask(packages.find, "dune", count=5)] == ["dune.3.17.2"]
        nursery.cancel_scope.cancel()
