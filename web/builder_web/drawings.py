"""The dependency graph and the treemap of a build: made once from an artifact, and kept where the original keeps its own.

``_cache/{dependencies,treemap}_VERSION/SHA256.html`` is a document made of the artifact with that SHA-256. The highest
version counts, so that a hook of the operator's may make better ones; ours have version 0.
"""

import re
import secrets
from collections.abc import Callable, Iterable
from pathlib import Path

from attrs import frozen

from builder_web.binaries.contents import BinaryContents, read_contents
from builder_web.charts import graph as graph_chart
from builder_web.charts.chart import Chart
from builder_web.charts.document import document, figure_of
from builder_web.charts.treemap import treemap
from builder_web.directory import DataDirectory
from builder_web.errors import UnreadableOpamFile
from builder_web.graph import in_words
from builder_web.opam.dependencies import dependencies
from builder_web.opam.switch import read_switch, switch_path
from builder_web.opam.syntax import MAX_SIZE
from builder_web.store.records import StoredArtifact

_VERSION = re.compile(r"(dependencies|treemap)_([0-9]{1,9})")
_OURS = 0
_PART = ".part"
_NOTHING = ""  # what is kept of an artifact that can't be drawn, so that it isn't tried again for each who asks


@frozen(kw_only=True)
class DrawingKind:
    """A kind of drawing: where it is kept, of which artifact it is made, and how."""

    name: str
    source: Callable[[Iterable[StoredArtifact]], StoredArtifact | None]
    draw: Callable[[Path], Chart | None]


@frozen(kw_only=True)
class Kept:
    """A document that was made of an artifact."""

    path: Path
    is_ours: bool
    """Whether a page may show what is in it: documents of other programs are shown in frames."""

    def figure(self) -> str:
        """Return what a page shows of a document of ours. Raises OSError."""
        return figure_of(self.path.read_text("utf-8"))


def _graph_source(files: Iterable[StoredArtifact]) -> StoredArtifact | None:
    by_path = {file.path: file for file in files}
    path = switch_path(by_path)
    return by_path[path] if path is not None else None


def _treemap_source(files: Iterable[StoredArtifact]) -> StoredArtifact | None:
    return next((file for file in files if file.path.endswith(".debug")), None)


def _draw_graph(path: Path) -> Chart | None:
    with path.open("rb") as file:
        data = file.read(MAX_SIZE + 1)
    try:
        graph = dependencies(read_switch(data))
    except UnreadableOpamFile:
        return None
    title = "What it was built of"
    return Chart(
        title=title,
        svg=graph_chart.draw(graph, title=title),
        description=graph_chart.describe(graph),
        rows=in_words(graph),
    )


def _draw_treemap(path: Path) -> Chart | None:
    with path.open("rb") as file:
        found = read_contents(file)
    if not isinstance(found, BinaryContents):
        return None
    return treemap(found.loaded, title="What takes the room in the binary")


# Builds of several jobs may have the artifact, so no drawing names a job
GRAPH = DrawingKind(name="dependencies", source=_graph_source, draw=_draw_graph)
TREEMAP = DrawingKind(name="treemap", source=_treemap_source, draw=_draw_treemap)


def make(directory: DataDirectory, kind: DrawingKind, source: StoredArtifact) -> Kept | None:
    """Return the document of an artifact, and make it unless there is one; None if it can't be drawn. Raises OSError."""
    kept = _find(directory, kind, source)
    if kept is None:
        chart = kind.draw(directory.content(source.digest))
        path = directory.cache / f"{kind.name}_{_OURS}" / f"{source.digest.hex()}.html"
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{secrets.token_hex(4)}{_PART}")
        try:
            part.write_text(document(chart) if chart is not None else _NOTHING, "utf-8", "replace")
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
        kept = Kept(path=path, is_ours=True)
    return kept if kept.path.stat().st_size else None


def _find(directory: DataDirectory, kind: DrawingKind, source: StoredArtifact) -> Kept | None:
    found = []
    for folder in directory.cache.iterdir() if directory.cache.is_dir() else ():
        match = _VERSION.fullmatch(folder.name)
        path = folder / f"{source.digest.hex()}.html"
        if match and match[1] == kind.name and path.is_file():
            found.append((int(match[2]), path))
    if not found:
        return None
    version, path = max(found)
    return Kept(path=path, is_ours=version == _OURS)


def remove_parts(directory: DataDirectory) -> None:
    """Remove what was half written when the program ended. Raises OSError."""
    for part in directory.cache.glob(f"*_{_OURS}/.*{_PART}"):
        part.unlink()
