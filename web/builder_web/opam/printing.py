"""Opam files as opam itself lays them out; what ``syntax.parse`` has read, it reads so again.

What fits stays on one line, and what does not is broken where opam breaks it. So a file that opam wrote comes out as it
was, and the differences between two files are those of their content.
"""

from collections.abc import Iterable, Sequence

from builder_web.opam.syntax import (
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
)

_MARGIN = 78  # characters of a line, as OCaml's Format has it, with which opam prints
_STEP = 2


def show(items: Iterable[Item]) -> str:
    """Return an opam file with these items; it ends with a newline."""
    return "".join(_item(item, 0) + "\n" for item in items)


def show_value(value: Value) -> str:
    """Return a value on one line, but for strings that have several."""
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case str():
            return _string(value)
        case Word(name=name):
            return name
        case Bracketed(values=values):
            return f"[{_joined(values)}]"
        case Group(values=values):
            return f"({_joined(values)})"
        case Filtered(value=inner, filters=filters):
            return f"{show_value(inner)} {{{_joined(filters)}}}"
        case Relation(operator=operator, left=left, right=right):
            return ("" if left is None else show_value(left) + " ") + f"{operator} {show_value(right)}"
        case Prefixed(operator=operator, value=inner):
            text = show_value(inner)
            return f"{operator} {text}" if text.startswith("=") else operator + text  # "!=" is something else
        case Logical(operator=operator, operands=operands):
            return f" {operator} ".join(map(show_value, operands))


def _joined(values: Iterable[Value]) -> str:
    return " ".join(map(show_value, values))


def _string(text: str) -> str:
    escaped = text.replace("\\", "\\\\")
    if "\n" not in text:
        return '"' + escaped.replace('"', '\\"') + '"'
    escaped = escaped.replace('"""', '\\"\\"\\"')
    if escaped.endswith('"'):
        escaped = escaped[:-1] + '\\"'
    if text[0] == "\n":
        return f'"""{escaped}"""'
    # The line's end after the first quotes is escaped, with which opam skips all blanks that follow.
    first = {" ": "\\ ", "\t": "\\t"}.get(text[0], escaped[:1])
    return f'"""\\\n{first}{escaped[1:]}"""'


# --- what does not fit on a line ---------------------------------------------------------------------------------------


def _item(item: Item, indent: int) -> str:
    newline = "\n" + " " * (indent + _STEP)
    if isinstance(item, Section):
        name = "" if item.name is None else _string(item.name) + " "
        body = "".join(newline + _item(inner, indent + _STEP) for inner in item.items)
        return f"{item.kind} {name}{{{body}\n{' ' * indent}}}"
    return item.name + ":" + _field(item, indent)


def _field(field: Field, indent: int) -> str:
    newline = "\n" + " " * (indent + _STEP)
    flat = show_value(field.value)
    fits = indent + len(field.name) + len(": ") + len(flat) <= _MARGIN
    if isinstance(field.value, Bracketed):
        values = field.value.values
        is_table = any(
            isinstance(value, Bracketed) or (isinstance(value, Filtered) and value.filters) for value in values
        )
        if fits and not is_table:
            return " " + flat
        is_row = not is_table and indent + _STEP + len(flat) - len("[]") <= _MARGIN
        content = flat[1:-1] if is_row else newline.join(_lines(values, indent + _STEP))
        return f" [{newline}{content}\n{' ' * indent}]"
    if fits or (isinstance(field.value, str) and "\n" in field.value):
        return " " + flat
    return newline + _broken(field.value, indent + _STEP)


def _lines(values: Sequence[Value], column: int) -> list[str]:
    return [_broken(value, column) for value in values]


def _broken(value: Value, column: int) -> str:
    """Return a value that begins at ``column``, broken where it must be."""
    flat = show_value(value)
    if column + len(flat) <= _MARGIN:
        return flat
    newline = "\n" + " " * column
    match value:
        case Bracketed(values=values):
            inner = newline + " " * _STEP
            return "[" + "".join(inner + line for line in _lines(values, column + _STEP)) + newline + "]"
        case Group(values=(only,)):
            return f"({_broken(only, column + 1)})"
        case Group(values=values):
            return f"({newline.join(_lines(values, column))})"
        case Logical(operator=operator, operands=operands):
            return _chain(operator, operands, column)
        case Filtered(value=inner_value, filters=filters):
            head = _broken(inner_value, column)
            end = column + len(head) if "\n" not in head else len(head) - head.rindex("\n") - 1
            braces = f"{{{_joined(filters)}}}"
            if end + 1 + len(braces) <= _MARGIN:
                return f"{head} {braces}"
            at = column + _STEP
            if at + len(braces) > _MARGIN:
                braces = "{" + ("\n" + " " * (at + 1)).join(_lines(filters, at + 1)) + "}"
            return head + newline + " " * _STEP + braces
        case _:
            return flat


def _chain(operator: str, operands: Sequence[Value], column: int) -> str:
    """Return operands of which as many as fit share the first line; each other has its own."""
    newline = "\n" + " " * column
    lines = _lines(operands, column)
    text = lines[0]
    for line in lines[1:]:
        longer = f"{text} {operator} {line}"
        fits = "\n" not in longer and column + len(longer) <= _MARGIN
        text = longer if fits else f"{text} {operator}{newline}{line}"
    return text
