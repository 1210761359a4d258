"""What the original answered to a fixed set of uploads is what ours answers, but for the original's faults."""

import json
from pathlib import Path

import pytest
from replay import (
    DATA,
    Site,
    Step,
    body_of,
    builder_db,
    database,
    files,
    headers_of,
    judge,
    recordings,
    replay_request,
)
from sites import InProcess, make_directory, open_site

STEPS = recordings()
STARTS = [index for index, step in enumerate(STEPS) if step["step"] == "fresh"]
FIRST, *HOSTILE = [STEPS[start:end] for start, end in zip(STARTS, [*STARTS[1:], len(STEPS)], strict=True)]


def test_every_request_of_a_site_with_many_builds(tmp_path: Path) -> None:
    problems: list[str] = []
    site = Site(tmp_path / "data", FIRST[0]["args"])
    try:
        for step in FIRST[1:]:
            problems += _do(site, step)
    finally:
        assert site.stop() == 0
    assert not problems, "\n".join(problems)


def _do(site: Site, step: Step) -> list[str]:
    match step["step"]:
        case "request":
            return replay_request(site, step)
        case "restart":
            assert site.stop() == 0
            site.start(step["args"])
        case "db":
            builder_db(site.root, *step["args"])
        case "write":
            path = site.root / step["path"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(step["text"])
        case "hooks":
            return _hooks(site)
        case "database":
            return [*_rows(site), *_files(site)]
        case other:
            raise AssertionError(other)
    return []


def _hooks(site: Site) -> list[str]:
    text = json.dumps(json.loads((DATA / "golden" / "hooks.json").read_text())).replace("DATA", str(site.root))
    wanted = sorted(json.loads(text))
    found = sorted(site.hooks(len(wanted)))
    return [] if found == wanted else [f"hooks were called with {found} instead of {wanted}"]


def _rows(site: Site) -> list[str]:
    wanted = json.loads((DATA / "golden" / "database.json").read_text())
    found = database(site.root)
    keys = ("application_id", "user_version")
    problems = [f"{key} is {site.pragma(key)}" for key in keys if site.pragma(key) != wanted[key]]
    if site.schema() != wanted["schema"]:
        problems.append(f"the schema is {site.schema()}")
    tags = {row["tag"]: row["id"] for row in wanted["tables"]["tag"]}
    ours = {row["id"]: tags.get(row["tag"]) for row in found["tag"]}
    found["tag"] = [row for row in found["tag"] if row["tag"] in tags]
    # the tag of the readme is one more than the original has: "expected" says so
    found["job_tag"] = [row for row in found["job_tag"] if ours[row["tag"]]]
    for table, rows in wanted["tables"].items():
        problems += _compare(table, found[table], rows)
    readme = [row["value"] for row in database(site.root)["job_tag"] if not ours[row["tag"]]]
    expected = [row["value"] for row in wanted["expected"]["job_tag"]]
    if not set(expected) <= set(readme):
        problems.append(f"the readmes are {readme} instead of {expected}")
    return problems


def _compare(table: str, found: list[Step], wanted: list[Step]) -> list[str]:
    ignored = {"id"} if table in {"tag", "job_tag"} else set()
    ignored |= {"password", "password_hash", "password_salt"}
    if table == "job_tag":
        ignored.add("tag")

    def plain(rows: list[Step]) -> list[Step]:
        return [{key: value for key, value in row.items() if key not in ignored} for row in rows]

    if plain(found) == plain(wanted):
        return []
    differing = [(a, b) for a, b in zip(plain(found), plain(wanted), strict=False) if a != b]
    return [f"{table} has {len(found)} rows instead of {len(wanted)}; first differing: {differing[:1]}"]


def _files(site: Site) -> list[str]:
    wanted = json.loads((DATA / "golden" / "files.json").read_text())
    found = files(site.root)
    return [
        f"file {path}: {found.get(path)} instead of {wanted.get(path)}"
        for path in sorted(found.keys() | wanted.keys())
        if found.get(path) != wanted.get(path)
    ]


async def _ask(site: InProcess, step: Step) -> list[str]:
    answer = await site.client.request(
        step["method"], step["path"], content=body_of(step), headers=headers_of(step, {})
    )
    return judge({}, step, answer.status, answer.headers, answer.content)


@pytest.mark.parametrize("steps", HOSTILE, ids=lambda steps: steps[2]["body"]["upload"])
async def test_a_hostile_upload_costs_no_other(steps: list[Step], tmp_path: Path) -> None:
    problems: list[str] = []
    directory = make_directory(tmp_path / "data")
    async with open_site(directory) as site:
        for step in steps[1:]:
            if step["step"] == "request":
                problems += await _ask(site, step)
    assert problems == []
    assert not directory.staging.exists() or not list(directory.staging.iterdir())
    assert sorted(path.name for path in tmp_path.iterdir() if "template" not in path.name) == ["data"]
