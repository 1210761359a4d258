"""Manual pages in roff, made of what click knows about a command: the same words that --help prints."""

import inspect
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence

import click
from attrs import field, frozen

SECTIONS = ("Examples", "Exit status", "Environment", "Files")
"""Blocks of a program's help that are sections of its page, in this order at its end; "Example" is the first of them."""

_BLOCK = "\b\n"  # what begins a block whose lines click keeps
_TITLE = re.compile(r"([A-Z][^:{\n]*): *")
_OPTION = re.compile(r"(?<![\w-])--?[A-Za-z][\w-]*")
_SPECIAL = str.maketrans({"\\": r"\e", "-": r"\-", "'": r"\(aq", "`": r"\(ga", "^": r"\(ha", "~": r"\(ti"})


def escape(text: str) -> str:
    """Return text as roff shows it, in ASCII: with minus signs and quotes that can be copied."""
    shown = "".join(char if char.isascii() else f"\\[u{ord(char):04X}]" for char in text.translate(_SPECIAL))
    return re.sub(r"^\.", r"\\\&.", shown, flags=re.MULTILINE)


def _prose(text: str) -> str:
    return escape(" ".join(text.split()))


def _literal(lines: str) -> str:
    return f".RS 4\n.EX\n{escape(lines)}\n.EE\n.RE"


def _usage(names: str) -> str:
    """Return options with their values, as --help writes them: the options bold."""
    return _OPTION.sub(lambda option: rf"\fB{option[0]}\fR", names).translate({ord("-"): r"\-"})


@frozen(kw_only=True)
class Block:
    """A part of a help text: prose, or lines that are kept, with the title that they have."""

    text: str
    title: str = ""
    kept: bool = False

    def roff(self, *, titled: bool) -> str:
        """Return the block, with its title unless that stands above it."""
        title = f"{escape(self.title)}:\n" if titled and self.title else ""
        if not self.kept:
            return f".PP\n{title}{_prose(self.text)}"
        return f".PP\n{title}{_literal(self.text)}"


def blocks(text: str) -> Iterator[Block]:
    """Return the parts of a help text or an epilog."""
    for part in re.split(r"\n{2,}", inspect.cleandoc(text).strip("\n")):
        if not part.startswith(_BLOCK):
            if part.strip():
                yield Block(text=part)
            continue
        kept = part.removeprefix(_BLOCK)
        title = _TITLE.match(kept)
        if title:
            rest, newline, below = kept[title.end() :].partition("\n")
            kept = below
            if rest:  # what stands below it still does
                indents = [len(line) - len(line.lstrip()) for line in below.splitlines()]
                kept = " " * min([len(title[0]), *indents]) + rest + newline + below
        lines = textwrap.dedent(kept)
        # a title with a sentence behind it
        is_prose = title is not None and "\n  " not in part and "{" not in lines
        yield Block(text=lines, title=title[1] if title else "", kept=not is_prose)


def _summary(text: str) -> str:
    """Return the first sentence of a help text as what follows a name."""
    first = next(blocks(text)).text.split(". ")[0].rstrip(".")
    return first[0].lower() + first[1:]


def options(context: click.Context) -> dict[str, str]:
    """Return the options of a command as --help writes them, and what it says of each."""
    found = (option for option in context.command.get_params(context) if isinstance(option, click.Option))
    return dict(record for option in found if (record := option.get_help_record(context)) is not None)


def _options(context: click.Context, above: Mapping[str, str]) -> Iterator[str]:
    """Return the options of a command; those that stand above only by their names."""
    own = options(context)
    for names, meaning in own.items():
        if names not in above:
            yield f".TP\n{_usage(names)}\n{_prose(meaning)}"
    if also := [_usage(names) for names in own if names in above]:
        yield f".PP\nAs above: {'; '.join(also)}."


def _synopsis(context: click.Context) -> str:
    pieces = " ".join(context.command.collect_usage_pieces(context))
    return rf"\fB{escape(context.command_path)}\fR {escape(pieces)}"


def _commands(context: click.Context) -> Iterator[click.Context]:
    """Return the contexts of all commands of a group, and of theirs."""
    group = context.command
    if not isinstance(group, click.Group):
        return
    for name in group.list_commands(context):
        _, command, _ = group.resolve_command(context, [name])
        assert command is not None
        inner = type(context)(command, info_name=name, parent=context)
        yield inner
        yield from _commands(inner)


def _heading(*, name: str, section: int, version: str, summary: str) -> str:
    title = escape(name.upper())
    return f'.TH "{title}" "{section}" "" "builder {version}"\n.SH NAME\n{escape(name)} \\- {escape(summary)}'


def _joined(parts: Iterable[str]) -> str:
    page = "\n".join(parts) + "\n"
    return re.sub(r"^(\.SH .*\n)\.PP\n", r"\1", page, flags=re.MULTILINE)  # a section begins a paragraph itself


def _see_also(name: str, section: int, others: Mapping[str, int]) -> str:
    found = [
        rf"\fB{escape(other)}\fR({number})"
        for other, number in sorted(others.items())
        if other != name or number != section
    ]
    return ".SH SEE ALSO\n" + ",\n".join(found)


def program_page(command: click.Command, *, name: str, version: str, others: Mapping[str, int]) -> str:
    """Return the page of a program, man 1: its help, and those of all its commands."""
    context = command.make_context(name, [], resilient_parsing=True)
    told = [*blocks(command.help or ""), *blocks(command.epilog or "")]
    parts = [
        _heading(name=name, section=1, version=version, summary=_summary(command.help or "")),
        f".SH SYNOPSIS\n{_synopsis(context)}",
        ".SH DESCRIPTION",
        *(block.roff(titled=True) for block in told if _section(block) is None),
        ".SH OPTIONS",
        *_options(context, {}),
    ]
    commands = list(_commands(context))
    if commands:
        parts.append(".SH COMMANDS")
    for inner in commands:
        parts.append(f".SS {escape(inner.command_path.removeprefix(name).strip())}\n{_synopsis(inner)}")
        parts += [block.roff(titled=True) for block in blocks(inner.command.help or "")]
        parts += _options(inner, options(context))
        parts += [block.roff(titled=True) for block in blocks(inner.command.epilog or "")]
    for section in SECTIONS:
        parts += [f".SH {section.upper()}\n{block.roff(titled=False)}" for block in told if _section(block) == section]
    return _joined([*parts, _see_also(name, 1, others)])


def _section(block: Block) -> str | None:
    title = "Examples" if block.title == "Example" else block.title
    return title if title in SECTIONS else None


@frozen(kw_only=True)
class Key:
    """A key of a file: what it may be set to, and what that means."""

    name: str
    value: str
    meaning: str


@frozen(kw_only=True)
class FilePage:
    """The page of a file in TOML, man 5."""

    name: str
    summary: str
    paths: Sequence[str]
    description: str
    keys: Sequence[Key]
    example: str = field(converter=inspect.cleandoc)

    def roff(self, *, version: str, others: Mapping[str, int]) -> str:
        """Return the page."""
        parts = [
            _heading(name=self.name, section=5, version=version, summary=self.summary),
            ".SH SYNOPSIS",
            "\n.br\n".join(map(escape, self.paths)),
            ".SH DESCRIPTION",
            *(block.roff(titled=True) for block in blocks(self.description)),
            ".SH KEYS",
            *_keys(self.keys),
            f".SH EXAMPLES\n{_literal(self.example)}",
            _see_also(self.name, 5, others),
        ]
        return _joined(parts)


def _keys(keys: Iterable[Key]) -> Iterator[str]:
    for key in keys:
        yield f".TP\n\\fB{escape(key.name)}\\fR = {escape(key.value)}\n{_prose(key.meaning)}"
