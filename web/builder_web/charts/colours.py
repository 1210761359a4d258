"""Colours that need no theme: light enough to stand out from a dark page, dark enough for one that is white.

Each hue has three tones, for what lies in each other. White text is readable on all of them (4.5:1 and more), and the
first tone stands out from white and from nearly black (3:1 and more).
"""

HUES = (
    ("#4c6ebe", "#3d5387", "#303f60"),
    ("#07824a", "#1f603b", "#21472f"),
    ("#aa5e03", "#7a491b", "#58381d"),
    ("#875fb2", "#63497f", "#48385a"),
    ("#0a7d87", "#015e66", "#04464d"),
    ("#b3516c", "#814151", "#5c333d"),
    ("#757501", "#57580f", "#414119"),
)
"""Next to each other in an order in which neighbours are told apart, also by those who see few colours."""

NEUTRAL = "#6b717d"
GOOD = "#07824a"
BAD = "#b5534a"

ON = "#fff"
"""Text on any of them."""
