"""How long the builds of a job took, and how large their output was, over time: a line for each platform.

A line connects builds that succeeded and breaks where one failed; those that failed are crosses. Each platform has a
shape besides its colour.
"""

import statistics
from collections.abc import Callable, Iterable, Sequence

from attrs import frozen

from builder.model import Instant
from builder.sizes import format_size
from builder_web.charts import svg
from builder_web.charts.axes import Axis, duration_axis, duration_words, size_axis, time_axis
from builder_web.charts.chart import Chart
from builder_web.charts.colours import HUES
from builder_web.charts.text import cut, fitted, width

MAX_BUILDS = 400
"""Most builds of a chart: the newest ones."""

MAX_PLATFORMS = 6
"""Most lines that can be told apart."""

MAX_ROWS = 100
"""Most numbers beside a drawing."""

_WIDTH, _HEIGHT = 440.0, 220.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 66.0, 12.0, 10.0, 24.0
_FONT = 12.0
_LEGEND = 18.0  # height of a line of the legend
_MAX_NAME = 40

# Within 4 units around the place: disc, square, diamond, triangle up, triangle down, bar
_SHAPES = (
    "m-3 0a3 3 0 1 0 6 0a3 3 0 1 0-6 0z",
    "m-2.7-2.7h5.4v5.4h-5.4z",
    "m0-4l4 4-4 4-4-4z",
    "m0-3.8l3.8 6.6h-7.6z",
    "m0 3.8l3.8-6.6h-7.6z",
    "m-1.5-4h3v8h-3z",
)
_CROSS = "m-3.2-3.2l6.4 6.4m0-6.4l-6.4 6.4"


@frozen(kw_only=True)
class BuildPoint:
    """What the charts show of a build."""

    platform: str
    started: Instant
    duration: int | None
    """Milliseconds; None, or negative, where it is not known."""
    size: int | None
    """Bytes of the main binary; None without one."""
    failed: bool


@frozen(kw_only=True)
class _Quantity:
    title: str
    value: Callable[[BuildPoint], int | None]
    words: Callable[[int], str]
    exact: Callable[[int], str]
    axis: Callable[[Sequence[int]], Axis]


_DURATION = _Quantity(
    title="Duration",
    value=lambda build: build.duration if build.duration is not None and build.duration >= 0 else None,
    words=duration_words,
    exact=duration_words,
    axis=lambda values: duration_axis(max(values)),
)
_SIZE = _Quantity(
    title="Size",
    value=lambda build: build.size,
    words=format_size,
    exact=lambda size: f"{size:,} bytes".replace(",", " "),
    axis=lambda values: size_axis(min(values), max(values)),
)


def duration_chart(builds: Iterable[BuildPoint]) -> Chart | None:
    """Return how long builds took; None if that is not known of any."""
    return _chart(builds, _DURATION)


def size_chart(builds: Iterable[BuildPoint]) -> Chart | None:
    """Return how large the outputs of builds were; None without any output."""
    return _chart(builds, _SIZE)


@frozen(kw_only=True)
class _Plane:
    """Where values are drawn."""

    times: Axis
    values: Axis
    top: float

    def place(self, build: BuildPoint, value: float) -> tuple[float, float]:
        x = _LEFT + self.times.place(build.started.ms) * (_WIDTH - _LEFT - _RIGHT)
        return x, self.height(value)

    def height(self, value: float) -> float:
        bottom = _HEIGHT - _BOTTOM
        return bottom - self.values.place(value) * (bottom - self.top)


def _chart(given: Iterable[BuildPoint], quantity: _Quantity) -> Chart | None:
    builds = sorted(given, key=lambda build: (build.started, build.platform))
    newest = builds[-MAX_BUILDS:]
    platforms = sorted({build.platform for build in newest})[:MAX_PLATFORMS]
    shown = [build for build in newest if build.platform in platforms]
    values = [value for build in shown if (value := quantity.value(build)) is not None]
    if not values:
        return None
    legend = _legend(platforms) if len(platforms) > 1 else []
    plane = _Plane(
        times=time_axis(shown[0].started, shown[-1].started),
        values=quantity.axis(values),
        top=_TOP + len(legend) * _LEGEND,
    )
    rows = [_row(build, quantity) for build in shown]
    series = [
        _series([(b, row) for b, row in zip(shown, rows, strict=True) if b.platform == name], index, plane, quantity)
        for index, name in enumerate(platforms)
    ]
    title = quantity.title + (f" on {platforms[0]}" if len(platforms) == 1 else "")
    description = " ".join(_words(name, [b for b in shown if b.platform == name], quantity) for name in platforms)
    if len(shown) < len(builds):
        description += f" Shown are {len(shown)} builds of {len(builds)}."
    return Chart(
        title=title,
        svg=svg.drawing(_WIDTH, _HEIGHT, *legend, *_grid(plane), *series, label=cut(title, 2 * _MAX_NAME)),
        description=description,
        rows=tuple(rows[: -MAX_ROWS - 1 : -1]),
    )


def _series(
    builds: Sequence[tuple[BuildPoint, tuple[str, str]]], index: int, plane: _Plane, quantity: _Quantity
) -> svg.Element:
    colour = HUES[index][0]
    line, pen = "", "M"
    marks: list[svg.Element] = []
    for build, row in builds:
        value = quantity.value(build)
        if value is None and not build.failed:
            pen = "M"
            continue
        x, y = plane.place(build, plane.values.first if value is None else value)
        at = f"M{svg.number(x)} {svg.number(y)}"
        title = svg.tag("title", ": ".join(row))
        if build.failed:
            pen = "M"
            marks.append(svg.tag("path", title, d=at + _CROSS, stroke=colour, stroke_width=2, fill="none"))
        else:
            line += f"{pen}{at[1:]}"
            pen = "L"
            marks.append(svg.tag("path", title, d=at + _SHAPES[index]))
    path = (
        [svg.tag("path", d=line, fill="none", stroke=colour, stroke_width=1.5, stroke_linejoin="round")] if line else []
    )
    return svg.tag("g", *path, *marks, fill=colour)


def _grid(plane: _Plane) -> list[svg.Element]:
    """Return the marks of both axes, with a line across for each value."""
    lines, labels = "", []
    for value, label in plane.values.marks:
        y = plane.height(value)
        lines += f"M{svg.number(_LEFT)} {svg.number(y)}H{svg.number(_WIDTH - _RIGHT)}"
        labels.append(svg.tag("text", label, x=_LEFT - 6, y=y + 4, text_anchor="end"))
    for ms, label in plane.times.marks:
        x = _LEFT + plane.times.place(ms) * (_WIDTH - _LEFT - _RIGHT)
        lines += f"M{svg.number(x)} {svg.number(_HEIGHT - _BOTTOM)}v4"
        half = width(label, _FONT) / 2
        labels.append(svg.tag("text", label, x=min(x, _WIDTH - half), y=_HEIGHT - 6, text_anchor="middle"))
    return [
        svg.tag("path", d=lines, fill="none", stroke="currentColor", stroke_opacity=0.25),
        svg.tag("g", *labels, fill="currentColor", font_size=_FONT),
    ]


def _legend(platforms: Sequence[str]) -> list[svg.Element]:
    """Return the names of platforms with their shapes, an element for each line that they take."""
    lines: list[list[svg.Element]] = [[]]
    x = _LEFT
    for index, platform in enumerate(platforms):
        label = fitted(platform, _FONT, _WIDTH - _LEFT - _RIGHT - 14) or "\u2026"
        room = 14 + width(label, _FONT) + 14
        if x + room > _WIDTH and lines[-1]:
            lines.append([])
            x = _LEFT
        y = _LEGEND * len(lines) - 4
        shape = svg.tag("path", d=f"M{svg.number(x + 4)} {svg.number(y - 4)}{_SHAPES[index]}", fill=HUES[index][0])
        lines[-1] += [shape, svg.tag("text", label, x=x + 14, y=y, fill="currentColor", font_size=_FONT)]
        x += room
    return [svg.tag("g", *line) for line in lines]


def _words(platform: str, builds: Sequence[BuildPoint], quantity: _Quantity) -> str:
    name = cut(platform, _MAX_NAME)
    values = [value for b in builds if not b.failed and (value := quantity.value(b)) is not None]
    failed = sum(build.failed for build in builds)
    failures = f", {failed} failed" if failed else ""
    count = f"{len(builds)} build{'' if len(builds) == 1 else 's'}"
    if not values:
        return f"{name}: {count}{failures}."
    low, high, usual, last = map(quantity.words, (min(values), max(values), statistics.median_low(values), values[-1]))
    between = f"{low} to {high}, usually {usual}, the last one {last}" if low != high else f"about {low}"
    return f"{name}: {count}{failures}, {between}."


def _row(build: BuildPoint, quantity: _Quantity) -> tuple[str, str]:
    value = quantity.value(build)
    words = "" if value is None else quantity.exact(value)
    if build.failed:
        words = f"failed ({words})" if words else "failed"
    moment = build.started.isoformat()[:19].replace("T", " ")
    return f"{moment}Z on {cut(build.platform, _MAX_NAME)}", words or "unknown"
