"""What the names of symbols say of where they come from: modules of OCaml, namespaces of C++ and Rust, prefixes of C.

Names are only taken apart as far as that needs; nothing is looked up, and a name that is none of these stays whole.
"""

import re

MAX_DEPTH = 6
"""Most steps of a path; those below are one step."""

# camlStdlib__List__map_123, and since OCaml 5.1 camlStdlib__List.map_123
_OCAML = re.compile(r"caml(?=[A-Z])([^.$]*)(?:[.$](.*))?", re.DOTALL)
# _ZN4core3fmt…E, _ZNK4Node3addEv, _ZTV4Node, _ZNSt6vector…: what precedes the first counted name
_CXX = re.compile(r"_Z(?:T[VTIS]|GV)?(?:N[rVK]*|L)?(St)?(?=[0-9])")
# _RNvNtCsgEmfK2I1SDS_4core3ptr13drop_in_place: the crate is the first counted name behind a C
_RUST = re.compile(r"_R[^C]*C(?:s[0-9A-Za-z]*_)?(?=[0-9])")
_COUNTED = re.compile(r"([0-9]{1,3})_?")
_RUST_HASH = re.compile(r"h[0-9a-f]{16}")
_PREFIX = re.compile(r"[._]*+[0-9A-Za-z]++[._]++(?=.)", re.DOTALL)


def split_name(name: str, unit: str | None) -> tuple[str, ...]:
    """Return the path to a symbol: groups from the outside in, then its own name; ``unit`` is its source file.

    The name itself says more than the file where it is one of OCaml, C++ or Rust. Without either, what precedes the
    first ``_`` or ``.`` is the group, with a ``*`` behind it.
    """
    if path := _ocaml(name) or _counted(name):
        return (*path[: MAX_DEPTH - 1], path[-1]) if len(path) > MAX_DEPTH else path
    if unit:
        return unit, name
    if prefix := _PREFIX.match(name):
        return f"{prefix[0]}*", name
    return (name,)


def _ocaml(name: str) -> tuple[str, ...]:
    match = _OCAML.fullmatch(name)
    if match is None:
        return ()
    path, member = match[1], match[2]
    modules = [part for part in path.split("__") if part]
    return (*modules, member) if member else tuple(modules)


def _counted(name: str) -> tuple[str, ...]:
    """Return the names of a mangled symbol that stand first and in a row, each behind its length."""
    start = _CXX.match(name) or _RUST.match(name)
    if start is None:
        return ()
    found = ["std"] if start[0].endswith("St") else []
    position = start.end()
    while match := _COUNTED.match(name, position):
        position = match.end() + int(match[1])
        part = name[match.end() : position]
        if part and not _RUST_HASH.fullmatch(part):
            found.append(part)
    return tuple(found)
