"""The recorded uploads and comparisons, as the tests of opam files need them."""

import functools
import json
from pathlib import Path
from typing import Any

from builder import execution
from builder_web.opam.comparison import ENVIRONMENT_NAME, SYSTEM_PACKAGES_NAME, Inputs
from builder_web.opam.switch import SWITCH_NAME

DATA = Path(__file__).parent / "data"


@functools.cache
def index() -> dict[str, dict[str, Any]]:
    """Return what is said of each upload, by its uuid; some uploads have none."""
    entries = json.loads((DATA / "uploads" / "index.json").read_text())
    return {entry["uuid"]: entry for entry in entries if entry.get("uuid")}


@functools.cache
def files(name: str) -> dict[str, bytes]:
    """Return the artifacts of an upload by their paths."""
    decoded = execution.decode((DATA / "uploads" / f"{name}.full").read_bytes())
    return {artifact.path: artifact.content for artifact in decoded.artifacts}


def inputs(name: str) -> Inputs:
    """Return what went into the build of an upload."""
    found = files(name)
    return Inputs(
        switch=found.get(SWITCH_NAME),
        environment=found.get(ENVIRONMENT_NAME),
        system_packages=found.get(SYSTEM_PACKAGES_NAME),
    )


def comparisons() -> list[tuple[str, str, dict[str, Any]]]:
    """Return the names of two uploads and the JSON of their comparison, or as much of it as is known to be right."""
    found = []
    with (DATA / "golden" / "recordings.jsonl").open() as lines:
        for step in map(json.loads, lines):
            parts = step.get("path", "").partition("?")[0].strip("/").split("/")
            if parts[0] != "compare" or step.get("accept") != "json" or len(parts) != 3:
                continue
            known = {**step, **step.get("expected", {})}
            answer = known.get("json") or known.get("json_subset")
            names = [index().get(uuid, {}).get("name") for uuid in parts[1:]]
            if answer and all(names):
                found.append((str(names[0]), str(names[1]), answer))
    return found
