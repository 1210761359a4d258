"""Makes HTML of the models, and Atom of feeds."""

import re
from collections.abc import Sequence
from types import MappingProxyType

import jinja2
from attrs import evolve
from markupsafe import Markup

from builder.model import Exited, describe_result
from builder.sizes import format_size
from builder_web.pages import comparing, models, pieces, words
from builder_web.pages.links import Links
from builder_web.pages.statics import STATIC_FILES

SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; frame-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'self'"
)
"""The Content-Security-Policy that every page keeps: nothing inline, nothing from elsewhere."""

MAX_FRAGMENTS = 8 * 1024 * 1024
"""Characters of parts of pages that are kept, such as a job in the list of all: it changes when it is built again, but the
others do not."""

_TEMPLATES = MappingProxyType(
    {
        models.MainPage: "main.html",
        models.AllBuildsPage: "main.html",
        models.JobPage: "job.html",
        models.FailedBuildsPage: "failed_builds.html",
        models.BuildPage: "build.html",
        models.ComparisonPage: "comparison.html",
        models.HashPage: "hash.html",
        models.SearchPage: "search.html",
        models.ConsolePage: "console.html",
        models.ScriptPage: "script.html",
        models.ErrorPage: "error.html",
    }
)


def render(page: models.Page, *, links: Links) -> str:
    """Return the HTML of a page: a whole document that can be encoded as UTF-8."""
    return _ENVIRONMENT.get_template(_TEMPLATES[type(page)]).render(
        page=page, links=evolve(links, origin=""), origin=links.origin
    )


class _Fragments:
    """Parts of pages that show one model and nothing else: each is made once, as long as there is room for it."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, object, Links], Markup] = {}
        self._size = 0

    def __call__(self, template: str, model: object, links: Links) -> Markup:
        """Return a part; the oldest ones are forgotten for it."""
        key = (template, model, links)
        if (kept := self._kept.get(key)) is not None:
            return kept
        text = _ENVIRONMENT.get_template(template).render(model=model, links=links)
        made = self._kept[key] = Markup(text)  # noqa: S704  the template escapes
        self._size += len(made)
        while self._size > MAX_FRAGMENTS:
            self._size -= len(self._kept.pop(next(iter(self._kept))))
        return made


def render_feed(feed: models.Feed, *, links: Links) -> str:
    """Return an Atom feed; ``links`` needs the origin, since addresses in a feed are whole."""
    return _ENVIRONMENT.get_template("feed.xml").render(page=feed, links=links)


def _diff_lines(diff: str) -> list[tuple[str, str]]:
    """Return the lines of a unified diff, each with what it is: a class of the style sheet."""
    kinds = {"+": "added", "-": "removed", "@": "place"}
    return [(kinds.get(line[:1], "same"), line) for line in re.split("\r?\n", diff.removesuffix("\n"))]


def _older_outputs(entries: Sequence[models.JobEntry]) -> list[str | None]:
    """Return for each entry the UUID of the build with the output before on the same platform, if it is here."""
    found: list[str | None] = [None] * len(entries)
    newer: dict[str, int] = {}
    for index, entry in enumerate(entries):
        if not entry.build.failed:
            if entry.build.platform in newer:
                found[newer[entry.build.platform]] = entry.build.uuid
            newer[entry.build.platform] = index
    return found


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(__package__),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
        finalize=words.harmless,
    )
    environment.filters |= {
        "compared": comparing.compared,
        "comparison_words": comparing.in_words,
        "count": words.count,
        "diff_lines": _diff_lines,
        "duration": words.duration,
        "exact": words.exact_time,
        "grouped": words.grouped,
        "older_outputs": _older_outputs,
        "result": describe_result,
        "size": format_size,
    }
    environment.tests |= {
        "all_builds": lambda page: isinstance(page, models.AllBuildsPage),
        "success": lambda result: result == Exited(code=0),
    }
    environment.globals |= {
        "fragment": _Fragments(),
        "pieces": pieces,
        "static": {name: file.digest for name, file in STATIC_FILES.items()},
    }
    return environment


_ENVIRONMENT = _environment()
