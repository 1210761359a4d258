"""A chart as a page of its own, which needs nothing else: what is kept in the cache, and shown in other pages as well."""

from builder_web.charts import svg
from builder_web.charts.chart import Chart

_STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif }
body { margin: 1rem }
h1 { font-size: 1.25rem; margin: 0 }
figure { margin: 0 }
figcaption { display: none }
svg { display: block; width: 100%; height: auto; margin: 1rem 0 }
table { border-collapse: collapse; font-size: 0.875rem }
th, td { text-align: left; font-weight: normal; padding: 0.1rem 1rem 0.1rem 0; overflow-wrap: anywhere }
"""
_BEGIN, _END = "<main>", "</main>"


def document(chart: Chart) -> str:
    """Return HTML with the drawing, its words and its numbers. It has a style sheet inside, and no scripts."""
    head = svg.tag(
        "head",
        svg.tag("meta", charset="utf-8"),
        svg.tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        svg.tag("title", chart.title),
    )
    title = svg.tag("header", svg.tag("h1", chart.title))
    return (
        f'<!doctype html>\n<html lang="en">{head.render()}<style>{_STYLE}</style>'
        f"<body>{title.render()}{_BEGIN}{_figure(chart)}{_END}</body></html>\n"
    )


def figure_of(text: str) -> str:
    """Return what a page shows of a document: a figure in a frame that scrolls, without a style of its own."""
    return text.partition(_BEGIN)[2].rpartition(_END)[0]


def _figure(chart: Chart) -> str:
    rows = [svg.tag("tr", svg.tag("th", name, scope="row"), svg.tag("td", value)) for name, value in chart.rows]
    numbers = svg.tag(
        "details", svg.tag("summary", "In numbers"), svg.tag("table", svg.tag("tbody", *rows), class_="plain")
    )
    return (
        f'<figure class="chart large">{svg.tag("figcaption", chart.title).render()}'
        f'<div class="canvas" tabindex="0" role="group" aria-label="Drawing">{chart.svg}</div>'
        f"{svg.tag('p', chart.description, class_='chart-words').render()}{numbers.render() if rows else ''}</figure>"
    )
