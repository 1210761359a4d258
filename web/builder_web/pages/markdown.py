"""The README of a job as HTML that can do nothing but be read.

Raw HTML is off. Links lead to http, https and mailto alone and are not followed by crawlers; what would be an image is a
link to it, since nothing may be fetched from elsewhere. Headings are moved below those of the page.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from urllib.parse import urlsplit

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.rules_core import StateCore
from markdown_it.token import Token
from markupsafe import escape

from builder_web.pages.words import harmless

MAX_CHARACTERS = 100_000
"""Of a README that are shown: a few hundred screens; what follows is left out."""

MAX_BLOCK = 10_000
"""Characters of a paragraph in which links and emphasis are looked for: the time for that grows with their square."""

MAX_KEPT = 32
"""READMEs whose HTML is kept: it takes longer to make than all else of a page."""

_SCHEMES = frozenset({"http", "https", "mailto"})
_HIGHEST, _LOWEST = 3, 6  # levels of headings: 1 is the page's, 2 the section's that the README stands in


def to_html(text: str) -> str:
    """Return a README, however hostile, as HTML to go into a page as it is."""
    return _to_html(text[:MAX_CHARACTERS])


@lru_cache(maxsize=MAX_KEPT)
def _to_html(text: str) -> str:
    parser = MarkdownIt("commonmark", {"html": False, "maxNesting": 20}).enable(["table", "strikethrough"])
    renderer = RendererHTML(parser)
    # Every link is accepted here and judged below: one that the parser refuses would stay as its source
    parser.validateLink = lambda url: True  # type: ignore[method-assign]  # noqa: ARG005
    parser.core.ruler.before("inline", "long_blocks", _leave_long_blocks)
    tokens = parser.parse(str(harmless(text.replace("\r\n", "\n"))))
    _lower_headings(tokens)
    for token in tokens:
        token.attrs.pop("start", None)  # a number of a hundred digits
        if token.children:
            token.children = _without_images(
                token.children, lambda found: renderer.renderInlineAsText(found, parser.options, {})
            )
            _tame_links(token.children)
    return str(renderer.render(tokens, parser.options, {}))


def _leave_long_blocks(state: StateCore) -> None:
    for token in state.tokens:
        if token.type == "inline" and len(token.content) > MAX_BLOCK:
            token.type = "text"


def _lower_headings(tokens: Sequence[Token]) -> None:
    """Have the first heading come at the highest level, and none skip a level."""
    above: list[int] = []
    for token in tokens:
        if token.type == "heading_open":
            level = int(token.tag[1])
            while above and above[-1] >= level:
                above.pop()
            above.append(level)
        if token.type in {"heading_open", "heading_close"}:
            token.tag = f"h{min(_HIGHEST + len(above) - 1, _LOWEST)}"


def _without_images(tokens: Sequence[Token], as_text: Callable[[Sequence[Token]], str]) -> list[Token]:
    result = []
    inside_link = 0
    for token in tokens:
        inside_link += {"link_open": 1, "link_close": -1}.get(token.type, 0)
        if token.type != "image":
            result.append(token)
            continue
        address = str(token.attrs.get("src", ""))
        label = Token("text", "", 0, content=as_text(token.children or ()) or address)
        if inside_link:  # a badge: the link that it stands in is enough
            result.append(label)
        else:
            result += [Token("link_open", "a", 1, attrs={"href": address}), label, Token("link_close", "a", -1)]
    return result


def _tame_links(tokens: Sequence[Token]) -> None:
    allowed = True
    for token in tokens:
        if token.type == "link_open":
            address = str(token.attrs.get("href", ""))
            allowed = _is_allowed(address)
            token.attrs = {"href": address, "rel": "nofollow noopener"}
        if token.type in {"link_open", "link_close"}:
            token.hidden = not allowed
        if token.type == "html_inline":
            token.content = str(escape(token.content))


def _is_allowed(address: str) -> bool:
    try:
        return urlsplit(address).scheme.lower() in _SCHEMES
    except ValueError:  # brackets that are no address of IPv6
        return False
