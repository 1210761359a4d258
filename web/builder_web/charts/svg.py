"""SVG as values: an element with attributes and children, written at once, so that nothing is escaped by hand."""

import re
from collections.abc import Mapping

from attrs import frozen

from builder.model import printable

_SPECIAL = re.compile(r'[&<>"]')
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;"}


@frozen
class Element:
    """An element; strings among its children are text, and any text will do."""

    name: str
    attributes: Mapping[str, str | float]
    children: tuple["Element | str", ...]

    def render(self) -> str:
        """Return the element as it stands in a document."""
        attributes = "".join(f' {name}="{_value(value)}"' for name, value in self.attributes.items())
        if not self.children:
            return f"<{self.name}{attributes}/>"
        content = "".join(_escape(child) if isinstance(child, str) else child.render() for child in self.children)
        return f"<{self.name}{attributes}>{content}</{self.name}>"


def tag(name: str, /, *children: Element | str, **attributes: str | float | None) -> Element:
    """Return an element. ``text_anchor`` stands for text-anchor, ``class_`` for class; None leaves an attribute out."""
    given = {key.rstrip("_").replace("_", "-"): value for key, value in attributes.items() if value is not None}
    return Element(name, given, children)


def drawing(width: float, height: float, *children: Element, label: str, alone: bool = False) -> str:
    """Return a document, or an element for a page, that is one image with ``label`` for those who don't see it.

    Alone, it has the size given; on a page it takes the width that is there.
    """
    size = {"width": number(width), "height": number(height)} if alone else {}
    return tag(
        "svg",
        *children,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {number(width)} {number(height)}",
        role="img",
        aria_label=label,
        **size,
    ).render()


def number(value: float) -> str:
    """Return a number with at most one decimal: a tenth of a pixel is less than anyone sees."""
    return f"{round(value, 1) + 0.0:.1f}".removesuffix(".0")  # -0.0 becomes 0.0


def _value(value: str | float) -> str:
    return _escape(value) if isinstance(value, str) else number(value)


def _escape(text: str) -> str:
    return _SPECIAL.sub(lambda match: _ENTITIES[match[0]], printable(text))
