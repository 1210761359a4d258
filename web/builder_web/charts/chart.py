"""What all charts are: a drawing, and the same in words and numbers."""

from attrs import frozen


@frozen(kw_only=True)
class Chart:
    """A drawing and the same in words. All texts in the drawing are harmless; the others are as they came."""

    title: str
    svg: str
    """An SVG element without style sheet, scripts or size: it fills the width that is there.

    What is not coloured by itself has the colour and the font of the page around it.
    """
    description: str
    """What the drawing shows, in a sentence or some."""
    rows: tuple[tuple[str, str], ...] = ()
    """The numbers behind it: what, and how much."""
