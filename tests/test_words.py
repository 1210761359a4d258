"""One meaning per name: what a class is called in one room is called so in no other."""

import ast
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FARM = ("builder", "server/builder_server", "worker/builder_worker", "client/builder_client")
SITE = ("builder", "web/builder_web")
PROVISIONER = ("builder", "provision/builder_provision")


@pytest.mark.parametrize("packages", [FARM, SITE, PROVISIONER])
def test_no_two_public_classes_have_one_name(packages: tuple[str, ...]) -> None:
    found: defaultdict[str, list[str]] = defaultdict(list)
    for package in packages:
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.parse(path.read_bytes()).body:
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    found[node.name].append(str(path.relative_to(ROOT)))
    assert len(found) > 100
    assert {name: places for name, places in found.items() if len(places) > 1} == {}
