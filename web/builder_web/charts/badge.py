"""Badges of a job: small images for other people's pages, in the flat shape that those are used to."""

from builder_web.charts import svg
from builder_web.charts.colours import BAD, GOOD, NEUTRAL, ON
from builder_web.charts.text import fitted, width

_HEIGHT = 20
_FONT = 11
_PADDING = 6
_MAX_LABEL = 240
_LABEL = "#474c55"


def status_badge(job: str, succeeded: bool | None, *, platform: str | None = None) -> str:  # noqa: FBT001
    """Return how the newest build of a job went, on one platform or all; None: there was none."""
    if succeeded is None:
        return _badge(job, platform, "never built", NEUTRAL)
    return _badge(job, platform, "succeeded", GOOD) if succeeded else _badge(job, platform, "failed", BAD)


def reproducibility_badge(job: str, reproduced: int | None, *, platform: str | None = None) -> str:
    """Return how often the newest output came out again; 0: the same input gave another one; None: nobody knows yet."""
    if reproduced is None:
        return _badge(job, platform, "reproducibility unknown", NEUTRAL)
    if reproduced == 0:
        return _badge(job, platform, "not reproducible", BAD)
    times = "once" if reproduced == 1 else f"{reproduced} times"
    return _badge(job, platform, f"reproduced {times}", GOOD)


def _badge(job: str, platform: str | None, message: str, colour: str) -> str:
    """Return two fields beside each other; in a font that is wider or narrower the letters are moved to fit."""
    name = job if platform is None else f"{job} on {platform}"
    label = fitted(name, _FONT, _MAX_LABEL) or "job"
    first, second = width(label, _FONT), width(message, _FONT)
    middle, end = first + 2 * _PADDING, first + second + 4 * _PADDING
    texts = [
        svg.tag("text", text, x=x, y=14, textLength=length)
        for text, x, length in ((label, _PADDING, first), (message, middle + _PADDING, second))
    ]
    return svg.drawing(
        end,
        _HEIGHT,
        svg.tag("title", f"{name}: {message}"),
        svg.tag("clipPath", svg.tag("rect", width=end, height=_HEIGHT, rx=3), id="edge"),
        svg.tag(
            "g",
            svg.tag("rect", width=middle, height=_HEIGHT, fill=_LABEL),
            svg.tag("rect", x=middle, width=end - middle, height=_HEIGHT, fill=colour),
            clip_path="url(#edge)",
        ),
        svg.tag("g", *texts, fill=ON, font_family="Verdana,DejaVu Sans,sans-serif", font_size=_FONT),
        label=f"{name}: {message}",
        alone=True,
    )
