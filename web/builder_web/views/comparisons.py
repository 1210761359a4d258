"""Two builds beside each other."""

from collections.abc import Mapping, Sequence

import trio
from starlette.requests import Request
from starlette.responses import Response

from builder_web.contrast import contrast
from builder_web.directory import DataDirectory
from builder_web.opam import comparison, comparison_json
from builder_web.opam.comparison import Comparison, Differences, DuniverseDifferences, Inputs
from builder_web.opam.switch import Directory, switch_path
from builder_web.opam.syntax import MAX_SIZE
from builder_web.pages import models, parts
from builder_web.store import builds
from builder_web.store.records import Build, StoredArtifact
from builder_web.views import answers, data, presenting
from builder_web.views.finding import build_by
from builder_web.views.remembering import remembered
from builder_web.views.site import Site, site_of

_MAX_CONTRASTED = 20
"""Artifacts that differ of which is shown how: each is read."""

_ENVIRONMENT = "build-environment"
_SYSTEM_PACKAGES = "system-packages"
_Files = Mapping[str, StoredArtifact]


@remembered
async def compare(request: Request) -> Response:
    """Answer with what differs between two builds."""
    site = site_of(request)
    left = await build_by(request, request.path_params["left"])
    right = await build_by(request, request.path_params["right"])
    files = [{file.path: file for file in await site.store.ask(builds.artifacts, one.id)} for one in (left, right)]
    found = await trio.to_thread.run_sync(_compare, site.directory, files)
    if answers.wants_json(request):
        sides = {"left": data.of_side(left), "right": data.of_side(right)}
        return answers.json(sides | comparison_json.to_json(found))
    return presenting.show(request, await _page(site, left, right, files, found))


def _compare(directory: DataDirectory, files: Sequence[_Files]) -> Comparison:
    left, right = (_inputs(directory, one) for one in files)
    return comparison.compare(left, right)


def _inputs(directory: DataDirectory, files: _Files) -> Inputs:
    def read(path: str | None) -> bytes | None:
        if path is None or path not in files:
            return None
        try:
            with directory.content(files[path].digest).open("rb") as file:
                return file.read(MAX_SIZE + 1)
        except OSError:
            return None

    return Inputs(
        switch=read(switch_path(files)), environment=read(_ENVIRONMENT), system_packages=read(_SYSTEM_PACKAGES)
    )


async def _page(
    site: Site, left: Build, right: Build, files: Sequence[_Files], found: Comparison
) -> models.ComparisonPage:
    switch = found.switch
    return models.ComparisonPage(
        left=presenting.summary(left),
        right=presenting.summary(right),
        artifacts=await trio.to_thread.run_sync(_pairs, site.directory, files),
        environment=_changes(found.environment),
        system_packages=_changes(found.system_packages),
        opam_packages=_changes(switch.packages) if switch else None,
        duniverse=_duniverse(switch.duniverse) if switch else None,
        opam_files=tuple(
            parts.OpamFileChange(
                package=one.package.name,
                version=one.package.version,
                diff="\n".join(one.diff[2:]),
                effective=one.is_effective,
            )
            for one in (switch.opam_files if switch else ())
        ),
        same_input=left.input_id == right.input_id if left.input_id and right.input_id else None,
        problems=(
            *(f"{one.file} of the {one.side} build: {one.why}" for one in found.problems),
            *(
                f"Only one side has the opam file of {package}."
                for package in (switch.described_once if switch else ())
            ),
        ),
    )


def _pairs(directory: DataDirectory, files: Sequence[_Files]) -> tuple[parts.ArtifactPair, ...]:
    pairs = []
    contrasted = 0
    for path in dict.fromkeys([*files[0], *files[1]]):
        left, right = files[0].get(path), files[1].get(path)
        difference = None
        if left and right and left.digest != right.digest and contrasted < _MAX_CONTRASTED:
            contrasted += 1
            try:
                difference = contrast(directory.content(left.digest), directory.content(right.digest))
            except OSError:
                difference = None
        pairs.append(
            parts.ArtifactPair(
                path=path,
                left=presenting.artifact(left) if left else None,
                right=presenting.artifact(right) if right else None,
                difference=difference,
            )
        )
    return tuple(pairs)


def _changes(found: Differences | None) -> parts.Changes | None:
    if found is None:
        return None
    return parts.Changes(
        removed=tuple(parts.Named(name=one.name, value=one.version) for one in found.only_left),
        added=tuple(parts.Named(name=one.name, value=one.version) for one in found.only_right),
        changed=tuple(parts.NamedChange(name=one.name, left=one.left, right=one.right) for one in found.changed),
        unchanged=found.unchanged,
    )


def _duniverse(found: DuniverseDifferences | None) -> parts.Changes | None:
    if found is None:
        return None
    return parts.Changes(
        removed=tuple(parts.Named(name=one.name, value=one.url) for one in found.only_left),
        added=tuple(parts.Named(name=one.name, value=one.url) for one in found.only_right),
        changed=tuple(
            parts.NamedChange(
                name=one.name, left=one.left.url, right=one.right.url, detail=_hashes(one.left, one.right)
            )
            for one in found.changed
        ),
    )


def _hashes(left: Directory, right: Directory) -> str:
    return "; ".join(
        f"{kind}: {left.hashes.get(kind, 'none')} → {right.hashes.get(kind, 'none')}"
        for kind in sorted(left.hashes.keys() | right.hashes.keys())
        if left.hashes.get(kind) != right.hashes.get(kind)
    )
