"""A chart as a page of its own."""

from html.parser import HTMLParser

from drawings import NASTY

from builder_web.charts.chart import Chart
from builder_web.charts.document import document


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert not [name for name, _ in attrs if name.startswith("on") or name == "style"]
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_a_page_of_its_own() -> None:
    chart = Chart(
        title="hello", svg='<svg role="img"/>', description="Two parts.", rows=((".text", "1 KiB"), (NASTY, NASTY))
    )
    reader = _Reader()
    reader.feed(document(chart))
    assert [tag for tag in reader.tags if tag in {"h1", "svg", "table", "script"}] == ["h1", "svg", "table"]
    assert {"hello", "Two parts.", ".text", "1 KiB"} <= set(reader.text)


def test_no_numbers_no_table() -> None:
    assert "<table" not in document(Chart(title="t", svg="<svg/>", description="d"))
