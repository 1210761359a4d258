"""A comparison in the JSON of ``/compare/LEFT/RIGHT``, in the shapes and orders of the original."""

from collections.abc import Iterable
from typing import Any

from builder_web.opam.comparison import Comparison, Differences, SwitchComparison
from builder_web.opam.switch import Package

Json = dict[str, Any]


def to_json(comparison: Comparison) -> Json:
    """Return the keys of a comparison beside ``left`` and ``right``, which are the builds.

    What could not be compared is null, and ``problems`` is there when there are any.
    """
    result: Json = {
        "env_diff": _named(comparison.environment),
        "package_diff": _named(comparison.system_packages),
        "opam_diff": comparison.switch and _switch(comparison.switch),
    }
    if comparison.problems:
        result["problems"] = [{"side": p.side, "file": p.file, "reason": p.why} for p in comparison.problems]
    return result


def _named(differences: Differences | None) -> Json | None:
    if differences is None:
        return None
    return {
        "left_packages": _packages(differences.only_left),
        "right_packages": _packages(differences.only_right),
        "different_versions": _changed(differences),
    }


def _packages(packages: Iterable[Package]) -> list[Json]:
    return [{"name": package.name, "version": package.version} for package in packages]


def _changed(differences: Differences) -> list[Json]:
    return [
        {"name": change.name, "version_left": change.left, "version_right": change.right}
        for change in differences.changed
    ]


def _switch(comparison: SwitchComparison) -> Json:
    # The original collects these three lists backwards; its users may have come to rely on it.
    return {
        "opam_diff": [
            {"package_version": str(file.package), "effectively_equal": False, "diff": "\n".join(file.diff)}
            for file in reversed(comparison.opam_files)
            if file.is_effective
        ],
        "version_diff": _changed(comparison.packages),
        "only_in_left": _packages(reversed(comparison.packages.only_left)),
        "only_in_right": _packages(reversed(comparison.packages.only_right)),
        "duniverse_diff": _duniverse(comparison),
    }


def _duniverse(comparison: SwitchComparison) -> Json | str | None:
    differences = comparison.duniverse
    if differences is None:
        return comparison.duniverse_problem
    return {
        "left": [{"name": directory.name, "value": directory.url} for directory in differences.only_left],
        "right": [{"name": directory.name, "value": directory.url} for directory in differences.only_right],
        "detailed_diff": [{"name": change.name} for change in differences.changed],
    }
