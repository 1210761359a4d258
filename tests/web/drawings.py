"""Drawings, read again."""

from collections.abc import Iterator
from xml.etree import ElementTree as ET

from attrs import frozen

SVG = "{http://www.w3.org/2000/svg}"
NASTY = '<script>alert("1")</script>&amp;\x00\x1b[31m\u202e\udcff\uffff\'`]]>'


@frozen(order=True)
class Rectangle:
    x: float
    y: float
    width: float
    height: float
    title: str

    @property
    def area(self) -> float:
        return self.width * self.height

    def holds(self, other: "Rectangle", slack: float = 0.2) -> bool:
        return (
            self.x - slack <= other.x
            and self.y - slack <= other.y
            and other.x + other.width <= self.x + self.width + slack
            and other.y + other.height <= self.y + self.height + slack
        )

    def overlap(self, other: "Rectangle") -> float:
        width = min(self.x + self.width, other.x + other.width) - max(self.x, other.x)
        height = min(self.y + self.height, other.y + other.height) - max(self.y, other.y)
        return max(width, 0) * max(height, 0)


def parsed(svg: str) -> ET.Element:
    """Return the drawing, which must be well-formed, and harmless on a page with strict rules."""
    root = ET.fromstring(svg)
    assert root.tag == f"{SVG}svg"
    assert root.get("role") == "img"
    assert root.get("aria-label")
    for element in root.iter():
        name = element.tag.removeprefix(SVG)
        assert name in {"svg", "g", "rect", "path", "text", "tspan", "title", "clipPath"}
        assert not {"style", "href", "onload", "onclick"} & set(element.keys())
    return root


def rectangles(root: ET.Element) -> Iterator[Rectangle]:
    for element in root.iter(f"{SVG}rect"):
        x, y, width, height = (float(element.get(name, 0)) for name in ("x", "y", "width", "height"))
        yield Rectangle(x, y, width, height, element.findtext(f"{SVG}title", ""))


def texts(root: ET.Element) -> list[str]:
    return ["".join(element.itertext()) for element in root.iter(f"{SVG}text")]


def titles(root: ET.Element) -> list[str]:
    return [element.text or "" for element in root.iter(f"{SVG}title")]
