"""The worker's code where anybody may read it: a clone below /root, or made by `mktemp -d`, is closed to other users."""

import importlib.metadata
import re
import shutil
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import builder
import builder_worker

LIBRARIES = ("asn1tools", "attrs", "click", "trio")
"""What the worker imports; their own needs come with them."""


def python() -> str:
    """Return an interpreter that anybody may run, of the version of this one: it may lie below /root as well."""
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    candidates = [Path(sys.executable).resolve(), Path("/usr/bin", name), Path("/usr/local/bin", name)]
    for path in candidates:
        if path.exists() and all(place.stat().st_mode & stat.S_IXOTH for place in (path, *path.parents)):
            return str(path)
    raise AssertionError(f"no {name} that every user may run: {', '.join(map(str, candidates))}")


def copy_worker(target: Path, *others: Path) -> None:
    """Copy the worker, its libraries and other files into a new directory, which is to be PYTHONPATH."""
    target.mkdir()
    for package in (builder, builder_worker):
        assert package.__file__ is not None
        shutil.copytree(Path(package.__file__).parent, target / package.__name__)
    for library in _with_needs(LIBRARIES):
        for file in library.files or ():
            if ".." not in file.parts:
                (target / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(str(library.locate_file(file)), target / file)  # as old as its bytecode says it is
    for path in others:
        shutil.copyfile(path, target / path.name)
    for path in (target, *target.rglob("*")):  # whatever the umask was that the clone was made with
        path.chmod(0o755 if path.is_dir() else 0o644)


def _with_needs(names: tuple[str, ...]) -> Iterator[importlib.metadata.Distribution]:
    seen: set[str] = set()
    wanted = list(names)
    while wanted:
        if (name := wanted.pop()) in seen:
            continue
        seen.add(name)
        try:
            found = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # a need of another system
        yield found
        needs = [need for need in found.requires or () if "extra ==" not in need]
        wanted += [re.split(r"[^\w.-]", need, maxsplit=1)[0] for need in needs]
