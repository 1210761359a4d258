"""JSON as the original gives it."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from builder.model import Instant
from builder_web.pages.parts import BuildSummary
from builder_web.store.records import Build, Job


def of_jobs(jobs: Iterable[Job], solo5: Mapping[bytes, str]) -> dict[str, Any]:
    """Return jobs, all together and by section; ``solo5`` is what main binaries say of themselves, by their SHA-256."""
    listed = []
    sections: dict[str, list[dict[str, Any]]] = {}
    for job in jobs:
        item = _of_job(job, solo5)
        listed.append(item)
        sections.setdefault(job.section, []).append(item)
    return {"jobs": listed, "jobs_by_section": sections}


def _of_job(job: Job, solo5: Mapping[bytes, str]) -> dict[str, Any]:
    item: dict[str, Any] = {"name": job.name, "synopsis": job.synopsis}
    newest = max((one.build for one in job.newest if one.build), key=lambda build: build.started, default=None)
    if newest and newest.main_binary and (said := of_solo5(solo5.get(newest.main_binary.digest))):
        item["latest"] = {"uuid": newest.uuid, **said}
    return item


def of_solo5(said: str | None) -> dict[str, Any]:
    """Return what answers have for a unikernel; nothing for another binary or a damaged one."""
    found: dict[str, Any] = json.loads(said or "{}")
    return {} if "damage" in found else found


def of_builds(builds: Iterable[BuildSummary]) -> dict[str, Any]:
    """Return the builds of a job."""
    listed = []
    for one in builds:
        file = one.output
        main = {"filename": file.name, "sha256": file.sha256, "size": file.size} if file else None
        listed.append({"uuid": one.uuid, "main_binary": main})
    return {"builds": listed}


def of_build(build: Build, solo5: str | None) -> dict[str, Any]:
    """Return one build."""
    return _of_build(build) | of_solo5(solo5)


def of_side(build: Build) -> dict[str, Any]:
    """Return a build as one side of a comparison."""
    return _of_build(build) | {"main_binary_size": build.main_binary.size if build.main_binary else None}


def _of_build(build: Build) -> dict[str, Any]:
    return {
        "job": build.job,
        "uuid": build.uuid,
        "platform": build.platform,
        "start_time": _time(build.started),
        "finish_time": _time(build.finished),
        "main_binary": build.main_binary is not None,
    }


def _time(moment: Instant) -> str:
    year, rest = moment.calendar()
    return f"{year:04}-{rest:%m-%dT%H:%M:%S}-00:00"
