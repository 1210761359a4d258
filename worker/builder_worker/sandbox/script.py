"""How the script of a job is run, and what is said of one that can't be."""

import codecs

from builder.model import printable, text

_MARKS = (codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)

_MARKED = "it begins with a byte order mark, as editors on Windows write it: save it as UTF-8 without one"
_CARRIED = "its lines end with CR and LF, as on Windows: save it with LF alone"

# The system only says that there is "no such file", of the script.
_BY_FIRST_LINE = """
[ -x "$2" ] || printf '%s\\n' "builder-worker: the first line of the script names $2, which is no program here"
[ -z "$3" ] || printf '%s\\n' "builder-worker: the script may fail: $3"
exec "$1"
"""

_BY_SHELL = """
printf '%s\\n' "builder-worker: the script may fail: $2"
exec /bin/sh "$1"
"""

# The system would not see a first line after the mark, and whatever shell is asked would take the script for its own.
_NOT_AT_ALL = """
printf '%s\\n' "builder-worker: the script can't be run: $1"
exit 126
"""


def interpreter(script: bytes, path: str) -> tuple[str, ...]:
    """Return how a script that lies at a path is run: by its own first line, or by /bin/sh."""
    if script.startswith(_MARKS):
        return ("/bin/sh", "-c", _NOT_AT_ALL, "sh", _MARKED)
    line = script[:4096].partition(b"\n")[0]
    doubt = _CARRIED if line.endswith(b"\r") else ""
    if script.startswith(b"#!"):
        words = line[2:].strip(b" \t").replace(b"\t", b" ").split(b" ")
        return ("/bin/sh", "-c", _BY_FIRST_LINE, "sh", path, printable(text(words[0])), doubt)
    return ("/bin/sh", "-c", _BY_SHELL, "sh", path, doubt) if doubt else ("/bin/sh", path)
