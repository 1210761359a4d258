"""Opam files: read, printed, and damaged."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder_web.errors import UnreadableOpamFile
from builder_web.opam import syntax
from builder_web.opam.dependencies import needed_packages
from builder_web.opam.package import OpamFile
from builder_web.opam.printing import show, show_value
from builder_web.opam.syntax import (
    Atom,
    Bracketed,
    Field,
    Filtered,
    Group,
    Item,
    Logical,
    Prefixed,
    Relation,
    Section,
    Value,
    Word,
    parse,
)

SWITCHES = sorted((Path(__file__).parent / "data" / "switches").iterdir())

_PIECES = 'a: 1 "x" """ [ ] ( ) { } & | ! ? >= = += # (* *) \\ " - true x+y'.split()  # noqa: SIM905  quotes within quotes
_CHARACTERS = st.characters(exclude_categories=["Cs"])
_NAMES = st.from_regex(
    r"[0-9_-]{0,2}[A-Za-z][A-Za-z0-9_-]{0,5}(\+(_|[a-z]{1,3})){0,2}(:[a-z-]{0,2}[A-Z])?", fullmatch=True
)
_WORDS = _NAMES.filter(lambda name: name not in {"true", "false"})
_STRINGS = st.one_of(st.text(_CHARACTERS), st.text(' \t\r\n"\\nx0'))
_ATOMS: st.SearchStrategy[Atom] = st.one_of(
    _STRINGS, st.integers(-(10**17), 10**17), st.booleans(), _WORDS.map(lambda name: Word(name=name))
)
_RELATIONS = st.builds(
    Relation, operator=st.sampled_from(["=", "!=", ">=", ">", "<=", "<", "~", "+=", "=+", "=+=", ":=", "=:"]),
    left=st.none() | _ATOMS, right=_ATOMS,
)  # fmt: skip


@st.composite
def _values(draw: st.DrawFn, depth: int = 3) -> Value:
    kind = draw(st.integers(0, 7 if depth else 1))
    if kind == 0:
        return draw(_ATOMS)
    if kind == 1:
        return draw(_RELATIONS)
    inner = _values(depth - 1)
    several = tuple(_apart(draw(st.lists(inner, max_size=3))))
    match kind:
        case 2 | 3:
            return Bracketed(values=several)
        case 4:
            return Group(values=several)
        case 5:
            return Filtered(value=_tight(draw(inner), Logical, Prefixed), filters=several)
        case 6:
            return Prefixed(operator=draw(st.sampled_from("!?")), value=_tight(draw(inner), Logical))
        case _:
            both = [draw(inner), draw(inner), *several]
            if draw(st.booleans()):
                return Logical(operator="&", operands=tuple(_tight(value, Logical) for value in both))
            return Logical(operator="|", operands=tuple(
                Group(values=(value,)) if isinstance(value, Logical) and value.operator == "|" else value
                for value in both
            ))  # fmt: skip


def _apart(values: list[Value]) -> list[Value]:
    """Keep a relation without its left side from taking the value before it."""
    return [*values[:1], *(Group(values=(value,)) if _is_open(value) else value for value in values[1:])]


def _is_open(value: Value) -> bool:
    match value:
        case Relation(left=left):
            return left is None
        case Filtered(value=first) | Logical(operands=(first, *_)):
            return _is_open(first)
        case _:
            return False


def _tight(value: Value, *loose: type) -> Value:
    return Group(values=(value,)) if isinstance(value, loose) else value


@st.composite
def _items(draw: st.DrawFn, depth: int = 2) -> Item:
    if depth and draw(st.booleans()):
        items = tuple(draw(st.lists(_items(depth - 1), max_size=3)))
        return Section(kind=draw(_WORDS), name=draw(st.none() | _STRINGS), items=items)
    return Field(name=draw(_WORDS), value=draw(_values()))


def value_of(text: str) -> Value:
    (item,) = parse(f"it: {text}".encode())
    assert isinstance(item, Field)
    return item.value


@given(items=st.lists(_items(), max_size=3).map(tuple))
def test_what_is_printed_is_read_back(items: tuple[Item, ...]) -> None:
    assert parse(show(items).encode()) == items


@given(data=st.binary())
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        items = parse(data)
    except UnreadableOpamFile:
        return
    assert parse(show(items).encode()) == items


@given(pieces=st.lists(st.sampled_from([*_PIECES, " ", "\n", "\r"])))
def test_any_tokens_are_read_or_refused(pieces: list[str]) -> None:
    try:
        items = parse(" ".join(pieces).encode())
    except UnreadableOpamFile:
        return
    assert parse(show(items).encode()) == items


@given(text=st.text('_-+:019aZ#=!<(*)\\"\n ', max_size=12))
def test_any_words_and_strings_are_read_or_refused(text: str) -> None:
    for data in (f"a: {text}", f'a: "{text}"', f'a: """{text}"""'):
        try:
            items = parse(data.encode())
        except UnreadableOpamFile:
            continue
        assert parse(show(items).encode()) == items


@pytest.mark.parametrize("path", SWITCHES, ids=lambda path: path.name)
def test_real_exports_come_out_as_they_were(path: Path) -> None:
    items = parse(path.read_bytes())
    assert parse(show(items).encode()) == items
    # Lines that opam broke where values are long; those with invented names were not laid out by opam.
    assert {line for line in show(items).splitlines() if "|" in line} <= set(path.read_text().splitlines())


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('"a\\n\\"\\\\\\x41\\066\\195\\169"', 'a\n"\\ABé'),
        ('"one \\\n     line"', "one line"),
        ('"""a "quoted" word\n"""', 'a "quoted" word\n'),
        ('"""""quoted\\""""', '""quoted"'),
        ('""', ""),
        ("-12", -12),
        ("1_000", 1000),
        ("-0_1__2_", -12),
        ("true", True),
        ("os-family", Word(name="os-family")),
        ("?foo+bar:installed", Prefixed(operator="?", value=Word(name="foo+bar:installed"))),
        ("_:lib", Word(name="_:lib")),
        ("[]", Bracketed(values=())),
        ('"a" {}', Filtered(value="a", filters=())),
        ("FOO += 1", Relation(operator="+=", left=Word(name="FOO"), right=1)),
        ("{}", None),
        ('>= "2" & !a | b', Logical(operator="|", operands=(
            Logical(operator="&", operands=(
                Relation(operator=">=", left=None, right="2"), Prefixed(operator="!", value=Word(name="a")))),
            Word(name="b"),
        ))),
        ('! = "a"', Prefixed(operator="!", value=Relation(operator="=", left=None, right="a"))),
        ("!a {b}", Prefixed(operator="!", value=Filtered(value=Word(name="a"), filters=(Word(name="b"),)))),
        ('a & "b" {c}', Logical(operator="&", operands=(
            Word(name="a"), Filtered(value="b", filters=(Word(name="c"),))))),
        ("1 (* a (* nested *) comment *) # and one to the end of the line", 1),
        ("1 2", None),
        ("1\r", None),
    ],
)  # fmt: skip
def test_values(text: str, value: Value | None) -> None:
    if value is None:
        with pytest.raises(UnreadableOpamFile):
            value_of(text)
    else:
        assert value_of(text) == value
        assert value_of(show_value(value)) == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("this is { not opam", "line 1, column 6: expected : or {, found a value"),
        ('a: "x"\nb: [1\n  2', "line 3, column 4: expected a value, found the end of the file"),
        ("a: 1\n  }", "line 2, column 3: expected a field, a section or the end of the file, found }"),
        ("a 1 {}", "line 1, column 3: expected : or {, found a value"),
        ('a: "x', "line 1, column 4: a string without its end"),
        ('a: """x"', "line 1, column 4: a string without its end"),
        ('é: "x"', "line 1, column 1: an unexpected character"),
        ('a: ["é" 1-1]', "line 1, column 9: neither a name nor a number"),
        ("a: 12345678901234567890", "line 1, column 4: a number of more than 19 digits"),
        ('a: "\\q"', "line 1, column 5: an escape that does not exist"),
        ('a: "\\256"', "line 1, column 5: an escape that does not exist"),
        ("a: 1 (* (* *)", "line 1, column 6: a comment without its end"),
        ("a: " + "(" * 60, "line 1, column 34: expected nothing nested deeper than 30 levels, found ("),
        ("a: b {} {} {} {}", "line 1, column 15: expected a field, a section or the end of the file, found {"),
    ],
)
def test_damage_is_found_where_it_is(text: str, message: str) -> None:
    with pytest.raises(UnreadableOpamFile) as caught:
        parse(text.encode())
    assert str(caught.value) == message


def test_bytes_that_are_no_utf8_can_be_shown() -> None:
    assert parse(b'a: "\xff" b: "\\xff"') == (Field(name="a", value="\ufffd"), Field(name="b", value="\ufffd"))


@pytest.mark.parametrize(
    "text", ["a: " + "(" * 10_000, "a: " + "!" * 10_000, "a: b" + "{}" * 10_000, "a {" * 10_000, "(*" * 100_000]
)
def test_depth_is_bounded(text: str) -> None:
    with pytest.raises(UnreadableOpamFile):
        parse(text.encode())


def test_the_deepest_values_can_be_walked_through() -> None:
    value = '"a"'
    for _ in range(syntax.MAX_DEPTH - 2):
        value = f"({value} {{b}} {{b}} {{b}} & c | d)"
    text = f"depends: [{value}] build: {value}".encode()
    items = parse(text)
    assert parse(show(items).encode()) == items == parse(text)
    assert hash(items) == hash(parse(text))
    opam_file = OpamFile.of(items)
    assert opam_file.show(name="a").startswith('name: "a"\ndepends: [')
    assert opam_file.effective() == OpamFile.of(parse(text)).effective()
    assert list(needed_packages(opam_file.fields["depends"])) == ["a"]


def test_long_chains_are_not_deep() -> None:
    value = value_of("a" + " & a" * 10_000)
    assert value_of(show(parse(f"it: {show_value(value)}".encode())).removeprefix("it:")) == value


def test_size_and_tokens_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(syntax, "MAX_SIZE", 100)
    monkeypatch.setattr(syntax, "MAX_TOKENS", 10)
    with pytest.raises(UnreadableOpamFile, match="101 bytes, more than the 100"):
        parse(b" " * 101)
    for text in (b"a: [ 1 2 3 4 5 6 7 8 9]", b"a: [[[[[]]]]] b: []"):
        with pytest.raises(UnreadableOpamFile, match="more than 10 tokens"):
            parse(text)
