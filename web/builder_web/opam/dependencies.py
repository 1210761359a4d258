"""Which of the packages of a switch needs which, by their opam files."""

from collections.abc import Iterator, Sequence

from builder_web.graph import Edge, Graph, Node
from builder_web.opam.switch import Switch
from builder_web.opam.syntax import Bracketed, Filtered, Group, Logical, Prefixed, Value, Word

_NEVER = frozenset({"with-test", "with-doc", "with-dev-setup", "post"})
"""Variables that are false while a package is built; ``post`` marks what must be there afterwards."""


def dependencies(switch: Switch) -> Graph:
    """Return the installed packages and which needs which; both sorted by name.

    Alternatives that are installed all count. So does what depends on the system or on a version: the solver has
    chosen what is installed by that.
    """
    roots = {package.name for package in switch.roots}
    edges: list[Edge] = []
    for name in sorted(switch.installed):
        opam_file = switch.opam_files.get(name)
        if opam_file is None:
            continue
        needed, optional = (
            {other for other in needed_packages(opam_file.fields.get(field)) if other in switch.installed} - {name}
            for field in ("depends", "depopts")
        )
        edges += (Edge(source=name, target=other) for other in sorted(needed))
        edges += (Edge(source=name, target=other, is_optional=True) for other in sorted(optional - needed))
    return Graph(
        nodes=tuple(
            Node(name=name, version=package.version, is_root=name in roots, is_described=name in switch.opam_files)
            for name, package in sorted(switch.installed.items())
        ),
        edges=tuple(edges),
    )


def needed_packages(formula: Value | None) -> Iterator[str]:
    """Yield each package that a formula names, in all alternatives, but under conditions that never hold for a build."""
    match formula:
        case str():
            yield formula
        case Bracketed(values=values) | Group(values=values) | Logical(operands=values):
            for value in values:
                yield from needed_packages(value)
        case Filtered(value=value, filters=filters) if _all_hold(filters) is not False:
            yield from needed_packages(value)


def _holds(condition: Value) -> bool | None:
    """Return whether a condition holds; None where the switch alone doesn't say."""
    match condition:
        case bool():
            return condition
        case Word(name=name) if name in _NEVER:
            return False
        case Group(values=values):
            return _all_hold(values)
        case Logical(operator="&", operands=operands):
            return _all_hold(operands)
        case Logical(operands=operands):
            found = [_holds(operand) for operand in operands]
            return True if True in found else None if None in found else False
        case Prefixed(operator="!", value=value):
            inner = _holds(value)
            return None if inner is None else not inner
        case _:
            return None


def _all_hold(conditions: Sequence[Value]) -> bool | None:
    found = [_holds(condition) for condition in conditions]
    return False if False in found else None if None in found else True
