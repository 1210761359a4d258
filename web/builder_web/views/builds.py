"""One build, and its files."""

import base64
import json
import mimetypes
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from builder_web.drawings import GRAPH, TREEMAP
from builder_web.pages import models
from builder_web.store import binaries, builds
from builder_web.store.records import Build
from builder_web.views import answers, data, presenting, provenance
from builder_web.views.answers import NotFound
from builder_web.views.drawings import drawing
from builder_web.views.finding import build_of
from builder_web.views.remembering import remembered
from builder_web.views.site import Site, site_of

_PLAIN = frozenset({"build-environment", "opam-switch", "system-packages"})
_TEXT = "text/plain; charset=utf-8"
_BINARY = "application/octet-stream"
_MOST_SHOWN = 50
_TYPES = {
    ".css": "text/css",
    ".deb": "application/x-debian-package",
    ".gz": _BINARY,
    ".html": "text/html; charset=utf-8",
    ".js": "application/javascript; charset=utf-8",
    ".log": _TEXT,
    ".md": "text/x-markdown",
    ".pkg": _BINARY,
    ".txt": _TEXT,
    ".xz": "application/x-xz",
}
"""Where the original's types are not what Python has."""


@remembered
async def build(request: Request) -> Response:
    """Answer with one build."""
    site, found = site_of(request), await build_of(request)
    said = await site.store.ask(binaries.solo5, found)
    if answers.wants_json(request):
        return answers.json(data.of_build(found, said))
    files = await site.store.ask(builds.artifacts, found.id)
    latest = await site.store.ask(builds.latest, found.job, found.platform)
    page = models.BuildPage(
        build=presenting.summary(found),
        artifacts=tuple(map(presenting.artifact, files)),
        solo5=_solo5(said),
        reproduction=await _reproduction(site, found),
        has_input=found.input_id is not None,
        latest=presenting.summary(latest) if latest and latest.uuid != found.uuid else None,
        later=presenting.maybe(await site.store.ask(builds.beside, found, later=True)),
        earlier=presenting.maybe(await site.store.ask(builds.beside, found, later=False)),
        graph=await drawing(site, GRAPH, files),
        treemap=await drawing(site, TREEMAP, files),
        provenance=await provenance.shown(site, found),
    )
    return presenting.show(request, page)


async def _reproduction(site: Site, found: Build) -> models.Reproduction | None:
    alike = await site.store.ask(builds.alike, found, count=_MOST_SHOWN)
    if alike is None:
        return None
    return models.Reproduction(
        builds=alike.same_builds + 1,
        inputs=alike.inputs,
        reproducers=tuple(
            models.Reproducer(
                build=presenting.summary(build),
                same_input=build.input_id is not None and build.input_id == found.input_id,
            )
            for build in alike.same
        ),
        different=tuple(map(presenting.summary, alike.different)),
        different_builds=alike.different_builds,
    )


def _solo5(said: str | None) -> models.Solo5 | None:
    found = json.loads(said or "{}")
    if not found:
        return None
    if "damage" in found:
        return models.Solo5(target=None, abi_version=None, problem=found["damage"])
    devices = found["solo5_manifest"]["devices"]
    return models.Solo5(
        target=found["solo5_abi"]["target"],
        abi_version=found["solo5_abi"]["version"],
        devices=tuple(models.Device(name=device["name"], kind=device["type"]) for device in devices),
    )


async def artifact(request: Request) -> Response:
    """Answer with an artifact."""
    site, found = site_of(request), await build_of(request)
    file = await site.store.ask(builds.find_artifact, found.id, request.path_params["path"])
    if file is None:
        raise NotFound(
            f"This build has no file {request.path_params['path']}. Its page lists those that it has.", job=found.job
        )
    etag = base64.b64encode(file.digest).decode()
    return answers.file(request, site.directory.content(file.digest), media_type=media_type(file.path), etag=etag)


async def main_binary(request: Request) -> Response:
    """Redirect to the main binary."""
    found = await build_of(request)
    if found.main_binary is None:
        raise NotFound(
            "This build has no main binary: it failed, or left none or several files in bin/.", job=found.job
        )
    return answers.redirect(site_of(request).links.artifact(found.job, found.uuid, found.main_binary.path), 302)


def media_type(path: str) -> str:
    """Return the media type of an artifact, as the original gives it."""
    name = path.rpartition("/")[2]
    if path in _PLAIN or path.endswith(".build-hashes"):
        return _TEXT
    if path.startswith("bin/"):
        return _BINARY
    suffix = Path(name).suffix.lower()
    return _TYPES.get(suffix) or mimetypes.guess_type(f"x{suffix}")[0] or _BINARY
