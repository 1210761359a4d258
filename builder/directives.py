"""What a job's script says about itself, in comments near its top, as words.

    #!/bin/sh
    # builder: memory=512M timeout=10m
    # builder: needs=kvm,cores>=4

Such lines stand among lines that are empty or begin with ``#``.
"""

import re
from collections.abc import Iterator

from builder.model import text

MAX_HEAD = 16 * 1024
"""Bytes of a script in which directives are looked for."""

_DIRECTIVE = re.compile(rb"#+\s*builder:\s+(.*)", re.ASCII)


def words(script: bytes) -> Iterator[tuple[int, str]]:
    """Yield the words of all directives, each with the number of its line."""
    for number, line in enumerate(script[:MAX_HEAD].split(b"\n"), start=1):
        if line.strip() and not line.startswith(b"#"):
            break
        match = _DIRECTIVE.match(line)
        for word in text(match[1]).split() if match else ():
            yield number, word
