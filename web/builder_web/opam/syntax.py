r"""The syntax of opam files, read into frozen values; ``printing`` is its inverse.

    file     = item*
    item     = name ":" value  |  kind [string] "{" item* "}"
    value    = "[" value* "]"  |  "(" value* ")"  |  value "{" value* "}"
             | value "&" value  |  value "|" value  |  "!" value  |  "?" value
             | [atom] relation atom  |  atom
    atom     = string  |  word  |  number  |  true  |  false

A filter in braces binds tightest, then the prefixes, "&", and "|".

Files come from strangers: the size, the number of tokens and the depth are bounded, and the time is linear in the size.
Text is UTF-8; a byte that is not becomes U+FFFD, so that whatever is read can be shown.
"""

import re
from collections.abc import Iterator
from typing import NoReturn

from attrs import frozen

from builder_web.errors import UnreadableOpamFile

MAX_SIZE = 8 * 1024 * 1024
"""Bytes of the largest file that is read: an export of 1 000 packages with their opam files has about 1 MB."""

MAX_TOKENS = 1_000_000
"""Most tokens of a file. What is read of one takes up to 100 bytes of memory; a real file has 10 bytes to a token."""

MAX_DEPTH = 30
"""How deep values and sections are nested at most; five is much for people. What walks through them may recurse."""

_MAX_BRACES = 3  # after one another; opam has a field with two

_MAX_DIGITS = 19  # of a number: opam's have 63 bits


@frozen(kw_only=True)
class Word:
    """A name that stands for something: ``name``, ``with-test``, ``os-family``, ``foo+bar:installed``."""

    name: str


@frozen(kw_only=True)
class Bracketed:
    """Values in brackets: ``["dune" "build"]``."""

    values: "tuple[Value, ...]"


@frozen(kw_only=True)
class Group:
    """Values in parentheses: ``("a" | "b")``."""

    values: "tuple[Value, ...]"


@frozen(kw_only=True)
class Filtered:
    """A value with what follows it in braces: ``"dune" {>= "3.0" & build}``."""

    value: "Value"
    filters: "tuple[Value, ...]"


@frozen(kw_only=True)
class Relation:
    """``left operator right``, a comparison or a change of the environment; without ``left`` in ``{>= "3.0"}``."""

    operator: str
    left: "Atom | None"
    right: "Atom"


@frozen(kw_only=True)
class Prefixed:
    """``!value`` (not) or ``?value`` (is it defined)."""

    operator: str
    value: "Value"


@frozen(kw_only=True)
class Logical:
    """Two or more operands of one operator, ``&`` or ``|``; no operand is a Logical of the same or a weaker one."""

    operator: str
    operands: "tuple[Value, ...]"


Atom = str | int | bool | Word
Value = Atom | Bracketed | Group | Filtered | Relation | Prefixed | Logical


@frozen(kw_only=True)
class Field:
    """``name: value``."""

    name: str
    value: Value


@frozen(kw_only=True)
class Section:
    """``kind "name" { items }``; most have no name."""

    kind: str
    name: str | None
    items: "tuple[Item, ...]"


Item = Field | Section


def parse(data: bytes) -> tuple[Item, ...]:
    """Return the items of an opam file. Raises UnreadableOpamFile, and nothing else, for any other bytes."""
    if len(data) > MAX_SIZE:
        raise UnreadableOpamFile(f"{len(data)} bytes, more than the {MAX_SIZE} that are read", line=1, column=1)
    text = data.decode("utf-8", "replace")
    return _Parser(text).file()


# --- tokens ----------------------------------------------------------------------------------------------------------

_TOKEN = re.compile(
    r"""
    (?: [ \t\n]++ | \r\n | \#[^\n]*+ )*+                            # between tokens
    (?:
      \"\"\" ( (?: [^"\\]++ | \\. | "(?!"") )*+ ) \"\"\"            # 1: a string of several lines
    | (?!\"\"\") " ( (?: [^"\\]++ | \\. )*+ ) "                     # 2: a string
    | ( [A-Za-z0-9_-]++ (?: \+ [A-Za-z0-9_-]++ )*+                  # 3: a word or a number
        (?: : (?= [0-9_-]*+ [A-Za-z] ) [A-Za-z0-9_-]++ )?+ )
    | ( \(\* )                                                      # 4: the begin of a comment
    | ( =\+=?+ | [+:]= | =: | != | [<>]=?+ | [][(){}:&|!?=~] )      # 5
    | \Z
    | ( . )                                                         # 6: nothing that may stand here
    )
    """,
    re.VERBOSE | re.DOTALL,
)
_LONG_STRING, _STRING, _WORD, _COMMENT, _PUNCTUATION, _OTHER = range(1, 7)
_COMMENT_MARK = re.compile(r"\(\*|\*\)")
_NUMBER = re.compile(r"-?[0-9][0-9_]*")
_NAME = re.compile(r"(?:[0-9_-]*[A-Za-z][A-Za-z0-9_-]*|_)(?:\+(?:[0-9_-]*[A-Za-z][A-Za-z0-9_-]*|_))*(?::.*)?")

_ESCAPE = re.compile(rb"""\\(?:(\r?\n[ \t]*+)|([\\"'nrtb ])|([0-9]{3})|x([0-9a-fA-F]{2})|.|\Z)""", re.DOTALL)
_CHARACTERS = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"b": b"\b"}

_ATOM = "atom"
_END = "the end of the file"
_RELATIONS = frozenset({"=", "!=", ">=", ">", "<=", "<", "~", "+=", "=+", "=+=", ":=", "=:"})
_AFTER_PLAIN = frozenset({_ATOM, "]", ")", "}", _END})  # what follows an atom that is a value by itself


class _Damage(Exception):
    """Why a string or a word cannot be read."""


def _matches(text: str) -> Iterator[re.Match[str]]:
    """Yield what ``_TOKEN`` finds, but comments, which are nested: no regular expression can read them."""
    position: int | None = 0
    while position is not None:
        found, position = position, None
        for match in _TOKEN.finditer(text, found):
            if match.lastindex == _COMMENT and (end := _comment_end(text, match.end())):
                position = end
                break
            yield match
            if match.lastindex is None:
                return


def _comment_end(text: str, position: int) -> int | None:
    depth = 1
    for mark in _COMMENT_MARK.finditer(text, position):
        depth += 1 if mark[0] == "(*" else -1
        if not depth:
            return mark.end()
    return None


def _read_word(word: str) -> Atom:
    if word in {"true", "false"}:
        return word == "true"
    if _NUMBER.fullmatch(word):
        if len(word) > _MAX_DIGITS:
            raise _Damage(f"a number of more than {_MAX_DIGITS} digits")
        return int(word.replace("_", ""))
    if _NAME.fullmatch(word):
        return Word(name=word)
    raise _Damage("neither a name nor a number")


def _read_string(group: int, found: str) -> str:
    if group == _COMMENT:
        raise _Damage("a comment without its end")
    if group == _OTHER:
        raise _Damage("a string without its end" if found == '"' else "an unexpected character")
    return _unescape(found) if "\\" in found else found


def _unescape(literal: str) -> str:
    # Escapes stand for bytes, of which several may make up one character.
    def replace(match: re.Match[bytes]) -> bytes:
        skipped, character, decimal, hexadecimal = match.groups()
        if skipped is not None:
            return b""
        if character is not None:
            return _CHARACTERS.get(character, character)
        code = int(decimal) if decimal else int(hexadecimal, 16) if hexadecimal else 256
        if code > 255:
            raise _Damage("an escape that does not exist")
        return bytes([code])

    return _ESCAPE.sub(replace, literal.encode()).decode("utf-8", "replace")


# --- values ----------------------------------------------------------------------------------------------------------


class _Parser:
    """Reads a file by recursive descent. The kind of a token is ``_ATOM`` or its own text."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._kinds: list[str] = []
        self._atoms: list[Atom] = []  # beside each kind; for punctuation it means nothing
        self._next = 0
        self._depth = 0
        self._tokenize()

    def _tokenize(self) -> None:
        words: dict[str, Atom] = {}
        kinds, atoms = self._kinds, self._atoms
        for match in _matches(self._text):
            group = match.lastindex
            if group is None:
                break
            if len(kinds) == MAX_TOKENS:
                self._fail(f"more than {MAX_TOKENS} tokens", match.start(group))
            found = match[group]
            if group == _PUNCTUATION:
                kinds.append(found)
                atoms.append("")
                continue
            try:
                if group == _WORD:
                    atom = words[found] if found in words else words.setdefault(found, _read_word(found))
                else:
                    atom = _read_string(group, found)
            except _Damage as damage:
                self._fail(str(damage), match.start(group))
            kinds.append(_ATOM)
            atoms.append(atom)
        kinds.append(_END)

    def _fail(self, why: str, position: int) -> NoReturn:
        line_start = self._text.rfind("\n", 0, position) + 1
        raise UnreadableOpamFile(why, line=self._text.count("\n", 0, position) + 1, column=position - line_start + 1)

    def _unexpected(self, expected: str) -> NoReturn:
        """Fail at the next token. Where that is needs a second look: no position was kept of the tokens before it."""
        kind = self._kinds[self._next]
        for index, match in enumerate(_matches(self._text)):
            if index == self._next:
                start = match.start(match.lastindex) if match.lastindex else match.end()
                self._fail(f"expected {expected}, found {'a value' if kind == _ATOM else kind}", start)
        raise AssertionError("the token is there")

    def _deeper(self) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            self._unexpected(f"nothing nested deeper than {MAX_DEPTH} levels")

    def file(self) -> tuple[Item, ...]:
        return self._items(_END)

    def _items(self, closer: str) -> tuple[Item, ...]:
        kinds, atoms = self._kinds, self._atoms
        items: list[Item] = []
        while kinds[self._next] != closer:
            name = atoms[self._next] if kinds[self._next] == _ATOM else None
            if not isinstance(name, Word):
                self._unexpected("a field, a section or " + closer)
            self._next += 1
            if kinds[self._next] == ":":
                self._next += 1
                items.append(Field(name=name.name, value=self._value()))
            else:
                items.append(self._section(name.name))
        self._next += 1
        return tuple(items)

    def _section(self, kind: str) -> Section:
        name = self._atoms[self._next] if self._kinds[self._next] == _ATOM else None
        if isinstance(name, str):
            self._next += 1
        if self._kinds[self._next] != "{":
            self._unexpected(": or {")
        self._deeper()
        self._next += 1
        items = self._items("}")
        self._depth -= 1
        return Section(kind=kind, name=name if isinstance(name, str) else None, items=items)

    def _values(self, closer: str) -> tuple[Value, ...]:
        """Read what stands between an opening mark, which is the next token, and its ``closer``."""
        self._deeper()
        self._next += 1
        values: list[Value] = []
        while self._kinds[self._next] != closer:
            values.append(self._value())
        self._next += 1
        self._depth -= 1
        return tuple(values)

    def _value(self) -> Value:
        index = self._next
        if self._kinds[index] == _ATOM and self._kinds[index + 1] in _AFTER_PLAIN:  # nearly all are
            self._next += 1
            return self._atoms[index]
        operands = [self._conjunction()]
        while self._kinds[self._next] == "|":
            self._next += 1
            operands.append(self._conjunction())
        return operands[0] if len(operands) == 1 else Logical(operator="|", operands=tuple(operands))

    def _conjunction(self) -> Value:
        operands = [self._prefixed()]
        while self._kinds[self._next] == "&":
            self._next += 1
            operands.append(self._prefixed())
        return operands[0] if len(operands) == 1 else Logical(operator="&", operands=tuple(operands))

    def _prefixed(self) -> Value:
        kind = self._kinds[self._next]
        if kind not in {"!", "?"}:
            return self._filtered()
        self._deeper()
        self._next += 1
        value = self._prefixed()
        self._depth -= 1
        return Prefixed(operator=kind, value=value)

    def _filtered(self) -> Value:
        value = self._simple()
        for _ in range(_MAX_BRACES):
            if self._kinds[self._next] != "{":
                return value
            value = Filtered(value=value, filters=self._values("}"))
        return value

    def _simple(self) -> Value:
        kind = self._kinds[self._next]
        if kind == "[":
            return Bracketed(values=self._values("]"))
        if kind == "(":
            return Group(values=self._values(")"))
        left = self._atom() if kind == _ATOM else None
        operator = self._kinds[self._next]
        if operator in _RELATIONS:
            self._next += 1
            return Relation(operator=operator, left=left, right=self._atom())
        if left is None:
            self._unexpected("a value")
        return left

    def _atom(self) -> Atom:
        if self._kinds[self._next] != _ATOM:
            self._unexpected("a string, a name or a number")
        self._next += 1
        return self._atoms[self._next - 1]
