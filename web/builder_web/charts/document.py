"""A chart as a page of its own, which needs nothing else: what is kept in the cache, and shown in a frame."""

from builder_web.charts import svg
from builder_web.charts.chart import Chart

_STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif }
body { margin: 1rem }
h1 { font-size: 1.25rem; margin: 0 }
svg { display: block; width: 100%; height: auto; margin: 1rem 0 }
table { border-collapse: collapse; font-size: 0.875rem }
th, td { text-align: left; font-weight: normal; padding: 0.1rem 1rem 0.1rem 0; overflow-wrap: anywhere }
"""


def document(chart: Chart) -> str:
    """Return HTML with the drawing, its words and its numbers. It has a style sheet inside, and no scripts."""
    head = svg.tag(
        "head",
        svg.tag("meta", charset="utf-8"),
        svg.tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        svg.tag("title", chart.title),
    )
    above = svg.tag("h1", chart.title).render() + svg.tag("p", chart.description).render()
    rows = [svg.tag("tr", svg.tag("th", name, scope="row"), svg.tag("td", value)) for name, value in chart.rows]
    below = svg.tag("details", svg.tag("summary", "In numbers"), svg.tag("table", *rows)).render() if rows else ""
    return (
        f'<!doctype html>\n<html lang="en">{head.render()}<style>{_STYLE}</style>'
        f"<body><main>{above}{chart.svg}{below}</main></body></html>\n"
    )
