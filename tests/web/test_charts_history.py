"""Durations and sizes over time."""

import re

import pytest
from drawings import NASTY, SVG, parsed, texts, titles
from hypothesis import given
from hypothesis import strategies as st

from builder.model import NEVER, Instant
from builder_web.charts.axes import MOST, duration_axis, duration_words, size_axis, time_axis
from builder_web.charts.chart import Chart
from builder_web.charts.history import MAX_BUILDS, MAX_PLATFORMS, MAX_ROWS, BuildPoint, duration_chart, size_chart

HOUR = 3_600_000
NOW = 1_795_651_200_000  # 2026-11-26T00:00:00Z
FIRST = Instant(-62_167_219_200_000)


def _build(
    hours: float,
    *,
    platform: str = "debian-12",
    duration: int | None = 60_000,
    size: int | None = 2**20,
    failed: bool = False,
) -> BuildPoint:
    started = Instant(NOW + int(hours * HOUR))
    return BuildPoint(platform=platform, started=started, duration=duration, size=size, failed=failed)


def _drawn(chart: Chart | None) -> Chart:
    assert chart is not None
    parsed(chart.svg)
    return chart


def _lines(chart: Chart) -> list[str]:
    """Return the commands of each platform's line."""
    paths = [path for path in parsed(chart.svg).iter(f"{SVG}path") if path.get("stroke-linejoin")]
    return [re.sub(r"[^ML]", "", path.get("d", "")) for path in paths]


BUILDS = [
    _build(1, duration=61_000),
    _build(2, duration=62_500),
    _build(3, duration=9_000, size=None, failed=True),
    _build(4, duration=64_000, size=2**20 + 4096),
    _build(5, duration=None),
    _build(6, duration=66_000),
]


def test_a_line_breaks_where_a_build_failed_or_is_unknown() -> None:
    chart = _drawn(duration_chart(BUILDS))
    assert _lines(chart) == ["MLMM"]
    assert chart.title == "Duration on debian-12"
    assert (
        chart.description
        == "debian-12: 6 builds, 1 failed, 1 min 1 s to 1 min 6 s, usually 1 min 2 s, the last one 1 min 6 s."
    )
    assert chart.rows == (
        ("2026-11-26 06:00:00Z on debian-12", "1 min 6 s"),
        ("2026-11-26 05:00:00Z on debian-12", "unknown"),
        ("2026-11-26 04:00:00Z on debian-12", "1 min 4 s"),
        ("2026-11-26 03:00:00Z on debian-12", "failed (9 s)"),
        ("2026-11-26 02:00:00Z on debian-12", "1 min 2 s"),
        ("2026-11-26 01:00:00Z on debian-12", "1 min 1 s"),
    )
    found = parsed(chart.svg)
    assert "2026-11-26 03:00:00Z on debian-12: failed (9 s)" in titles(found)
    assert texts(found) == ["0", "30 s", "1 min", "1 min 30 s", "03:00", "06:00"]


def test_a_failed_build_has_a_shape_of_its_own() -> None:
    root = parsed(_drawn(size_chart(BUILDS)).svg)
    marks = {path.findtext(f"{SVG}title", ""): path for path in root.iter(f"{SVG}path") if path.findtext(f"{SVG}title")}
    assert len(marks) == 6
    crosses = [title for title, path in marks.items() if path.get("fill") == "none"]
    assert crosses == ["2026-11-26 03:00:00Z on debian-12: failed"]


def test_the_sizes() -> None:
    chart = _drawn(size_chart(BUILDS))
    assert chart.title == "Size on debian-12"
    assert chart.description == "debian-12: 6 builds, 1 failed, about 1 MiB."
    assert chart.rows[2] == ("2026-11-26 04:00:00Z on debian-12", "1 052 672 bytes")


def test_platforms_have_names_shapes_and_colours() -> None:
    chart = _drawn(duration_chart([_build(n, platform=f"p{n % 3}") for n in range(9)]))
    root = parsed(chart.svg)
    assert chart.title == "Duration"
    assert {"p0", "p1", "p2"} <= set(texts(root))
    groups = [group for group in root.findall(f"{SVG}g") if group.get("fill", "").startswith("#")]
    assert len({group.get("fill") for group in groups}) == 3
    shapes = {re.sub(r"^M[-\d. ]+", "", group.findall(f"{SVG}path")[-1].get("d", "")) for group in groups}
    assert len(shapes) == 3


def test_nothing_to_show_is_no_chart() -> None:
    assert duration_chart([]) is None
    assert size_chart([_build(1, size=None, failed=True)]) is None
    assert duration_chart([_build(1, duration=None)]) is None


def test_charts_are_bounded() -> None:
    many = [_build(n, platform=f"{n % 8}{NASTY * 20}") for n in range(3000)]
    chart = _drawn(duration_chart(many))
    assert len(chart.svg.encode()) < 300_000
    assert len(chart.rows) == MAX_ROWS
    assert len(_lines(chart)) == MAX_PLATFORMS
    assert chart.description.endswith(f"Shown are {MAX_BUILDS * MAX_PLATFORMS // 8} builds of 3000.")
    assert chart == duration_chart(list(reversed(many)))


@pytest.mark.parametrize(
    ("ms", "words"),
    [
        (0, "0 ms"),
        (999, "999 ms"),
        (1000, "1 s"),
        (58_540, "58.5 s"),
        (60_000, "1 min"),
        (61_999, "1 min 1 s"),
        (3_600_000, "1 h"),
        (5_430_000, "1 h 30 min"),
        (90_000_000, "1 d 1 h"),
    ],
)
def test_durations_in_words(ms: int, words: str) -> None:
    assert duration_words(ms) == words


@pytest.mark.parametrize(
    ("longest", "labels"),
    [
        (0, "0, 1 ms"),
        (950, "0, 500 ms, 1 s"),
        (240_000, "0, 1 min, 2 min, 3 min, 4 min"),
        (250_000, "0, 2 min, 4 min, 6 min"),
        (5 * HOUR, "0, 2 h, 4 h, 6 h"),
        (100 * 24 * HOUR, "0, 50 d, 100 d"),
    ],
)
def test_marks_of_durations(longest: int, labels: str) -> None:
    assert ", ".join(label for _, label in duration_axis(longest).marks) == labels


@pytest.mark.parametrize(
    ("smallest", "largest", "labels"),
    [
        (0, 0, "0 bytes, 1 bytes"),
        (0, 4 * 2**20, "0 MiB, 1 MiB, 2 MiB, 3 MiB, 4 MiB"),
        (2**20, 6 * 2**20, "0 MiB, 2 MiB, 4 MiB, 6 MiB"),
        (6_300_000, 6_310_000, "6.00 MiB, 6.01 MiB, 6.02 MiB, 6.03 MiB"),
        (900 * 2**10, 1100 * 2**10, "0.85 MiB, 0.90 MiB, 0.95 MiB, 1.00 MiB, 1.05 MiB, 1.10 MiB"),
    ],
)
def test_marks_of_sizes(smallest: int, largest: int, labels: str) -> None:
    assert ", ".join(label for _, label in size_axis(smallest, largest).marks) == labels


@pytest.mark.parametrize(
    ("first", "hours", "labels"),
    [
        (NOW, 0, "12:00, 18:00, 00:00, 06:00, 12:00"),
        (NOW, 3, "00:00, 01:00, 02:00, 03:00"),
        (NOW, 80, "26 Nov, 27 Nov, 28 Nov, 29 Nov"),
        (NOW, 24 * 40, "3 Dec, 17 Dec, 31 Dec"),
        (NOW, 24 * 100, "Dec 2026, Jan 2027, Feb 2027, Mar 2027"),
        (NOW, 24 * 3000, "2030, 2035"),
        (FIRST.ms, 24 * 365 * 9999, "5000"),
    ],
)
def test_marks_of_times(first: int, hours: int, labels: str) -> None:
    axis = time_axis(Instant(first), Instant(first + hours * HOUR))
    assert ", ".join(label for _, label in axis.marks) == labels


instants = st.integers(FIRST.ms, NEVER.ms).map(Instant)


@given(one=instants | st.just(FIRST), other=instants | st.just(NEVER), same=st.booleans())
def test_any_times_have_an_axis(one: Instant, other: Instant, *, same: bool) -> None:
    first, last = sorted((one, one if same else other))
    axis = time_axis(first, last)
    assert axis.first < axis.last
    assert len(axis.marks) <= MOST + 1
    assert all(axis.first <= ms <= axis.last for ms, _ in axis.marks)


@given(values=st.lists(st.integers(0, 2**80), min_size=2, max_size=2))
def test_any_values_have_an_axis(values: list[int]) -> None:
    for axis in (size_axis(min(values), max(values)), duration_axis(max(values))):
        assert axis.first < axis.last
        assert 2 <= len(axis.marks) <= MOST + 3 or axis.last > 2**60
        assert axis.place(min(values)) >= -0.01
        assert axis.place(max(values)) <= 1.01


@given(
    builds=st.lists(
        st.builds(
            BuildPoint,
            platform=st.text(st.characters(codec=None), max_size=5),
            started=instants,
            duration=st.none() | st.integers(0, 2**60),
            size=st.none() | st.integers(0, 2**60),
            failed=st.booleans(),
        ),
        max_size=20,
    )
)
def test_any_builds_are_drawn(builds: list[BuildPoint]) -> None:
    for chart in (duration_chart(builds), size_chart(builds)):
        if chart is not None:
            parsed(chart.svg)
