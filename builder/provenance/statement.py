"""What is said of a build: a statement of in-toto, version 1, with the provenance of SLSA, version 1, as its predicate.

Its first subject is the set of all artifacts, by one hash, so that each build has one, and nothing can be added to it. The
artifacts follow, as far as there is room. What SLSA has no place for has names that begin with ``builder_``. What is not
known is left out.
"""

import base64
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, Self
from uuid import UUID

from attrs import field, frozen

from builder.model import Instant, Result, parse_result, raw, text
from builder.provenance import InvalidProvenance, times
from builder.provenance.directory import DirectoryHash
from builder.provenance.envelope import MAX_PAYLOAD, PAYLOAD_TYPE, Envelope, read_json

TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://slsa.dev/provenance/v1"

BUILD_TYPE = "urn:builder:job:v1"
"""A script that a worker has run, in its sandbox. docs/provenance.md says what belongs to it."""

ALL = "."
"""The name of the subject that is all artifacts: none can be called so."""

MAX_SUBJECTS = 3 * 1024 * 1024
"""Bytes of artifacts by name, beyond which none is named: about 20 000 artifacts."""

_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)


@frozen(kw_only=True)
class Subject:
    """The path of an artifact, and the 32 bytes of its SHA-256."""

    path: str
    sha256: bytes


@frozen(kw_only=True)
class Attested:
    """What is known of how a build ran. Texts of before are empty, or None where they may be.

    ``template`` is the SHA-256 of the template that the script of an orb build was made of, in hexadecimal digits;
    ``limits`` are those that the job itself has, in milliseconds; ``told`` is what the worker has said of the build.
    """

    builder_id: str
    uuid: UUID
    job: str
    platform: str
    script_sha256: bytes
    started: Instant
    finished: Instant
    signed: Instant
    result: Result
    ended_by: str | None = None
    template: str | None = None
    opam_package: str | None = None
    limits: Mapping[str, int] = field(factory=dict)
    worker: Mapping[str, str] = field(factory=dict)
    told: Mapping[str, str] = field(factory=dict)
    versions: Mapping[str, str] = field(factory=dict)


class Subjects:
    """Takes artifacts in the order of the bytes of their paths, of which there may be a million."""

    def __init__(self) -> None:
        self._all = DirectoryHash()
        self._named: list[str] | None = []
        self._size = 0

    def add(self, artifacts: Iterable[Subject]) -> None:
        """Take some more."""
        for each in artifacts:
            self._all.add(raw(each.path), each.sha256)
            if self._named is None:
                continue
            named = _json({"digest": {"sha256": each.sha256.hex()}, **_named(each.path)})
            self._size += len(named)
            self._named.append(named)
            if self._size > MAX_SUBJECTS:
                self._named = None  # a part of them might be taken for all

    def encode(self) -> str:
        """Return them as JSON."""
        first = _json({"digest": {"dirHash": self._all.hexdigest()}, "name": ALL})
        return f"[{','.join([first, *(self._named or ())])}]"


def encode(facts: Attested, subjects: Subjects) -> bytes:
    """Return the statement about a build. What is the same is encoded alike."""
    predicate = _json({"buildDefinition": _definition(facts), "runDetails": _run(facts)})
    return (
        f'{{"_type":"{TYPE}","predicate":{predicate},"predicateType":"{PREDICATE_TYPE}","subject":{subjects.encode()}}}'
    ).encode("ascii")


def _definition(facts: Attested) -> dict[str, object]:
    script = {"digest": {"sha256": facts.script_sha256.hex()}, "name": "script"}
    return {
        "buildType": BUILD_TYPE,
        "externalParameters": _known(
            job=_shown(facts.job),
            platform=_shown(facts.platform),
            script=script["digest"],
            opam_package=facts.opam_package and _shown(facts.opam_package),
        ),
        "internalParameters": _known(limits_ms=dict(facts.limits), worker=_all_shown(facts.told)),
        "resolvedDependencies": [script, *_template(facts), *_root(facts)],
    }


def _template(facts: Attested) -> list[dict[str, object]]:
    return [{"digest": {"sha256": facts.template}, "name": "template"}] if facts.template else []


def _root(facts: Attested) -> list[dict[str, object]]:
    digest, snapshot = facts.told.get("root", ""), facts.told.get("snapshot")
    if not _SHA256.fullmatch(digest):
        return []
    return [_known(digest={"sha256": digest}, name="root", annotations=_known(snapshot=snapshot and _shown(snapshot)))]


def _run(facts: Attested) -> dict[str, object]:
    return {
        "builder": _known(id=facts.builder_id, version=_all_shown(facts.versions)),
        "metadata": {
            "invocationId": str(facts.uuid),
            "startedOn": facts.started.isoformat(),
            "finishedOn": facts.finished.isoformat(),
            "builder_result": _shown(str(facts.result)),
            "builder_signedOn": facts.signed.isoformat(),
            **_known(builder_endedBy=facts.ended_by and _shown(facts.ended_by)),
            **_known(builder_worker=_all_shown(facts.worker)),
        },
    }


def _known(**values: object) -> dict[str, object]:
    return {name: value for name, value in values.items() if value}


def _named(path: str) -> dict[str, object]:
    """Return a path as JSON has it: what is not UTF-8 stands beside it."""
    shown = _shown(path)
    if shown == path:
        return {"name": path}
    return {"annotations": {"path_base64": base64.b64encode(raw(path)).decode("ascii")}, "name": shown}


def _all_shown(values: Mapping[str, str]) -> dict[str, str]:
    return {_shown(name): _shown(value) for name, value in values.items()}


def _shown(value: str) -> str:
    return raw(value).decode("utf-8", "replace")


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), sort_keys=True)


# --- what others are told ------------------------------------------------------------------------------------------


@frozen(kw_only=True)
class Statement:
    """A statement as it is read. ``script`` is a SHA-256 in hexadecimal digits. ``artifacts`` are None where there are too many to be named; ``directory`` is the hash of all.

    ``predicate`` is what it has besides, for whoever wants to show it.
    """

    uuid: UUID
    job: str
    platform: str
    script: str
    builder_id: str
    started: Instant
    finished: Instant
    signed: Instant
    result: Result | None
    directory: str
    artifacts: Mapping[str, bytes] | None
    predicate: Mapping[str, Any] = field(repr=False)

    @classmethod
    def decode(cls, envelope: Envelope) -> Self:
        """Read the statement of an envelope that anybody may have made. Raises InvalidProvenance."""
        if envelope.payload_type != PAYLOAD_TYPE or len(envelope.payload) > MAX_PAYLOAD:
            raise InvalidProvenance("what is signed is no statement of in-toto, or too large for one")
        found = read_json(envelope.payload, "statement")
        match found:
            case {
                "_type": _type,
                "predicateType": predicate_type,
                "subject": list() as subjects,
                "predicate": {
                    "buildDefinition": {
                        "buildType": build_type,
                        "externalParameters": {
                            "job": str() as job,
                            "platform": str() as platform,
                            "script": {"sha256": str() as script},
                        },
                    },
                    "runDetails": {
                        "builder": {"id": str() as builder_id},
                        "metadata": {
                            "invocationId": str() as uuid,
                            "startedOn": str() as started,
                            "finishedOn": str() as finished,
                            "builder_result": str() as result,
                            "builder_signedOn": str() as signed,
                        },
                    },
                } as predicate,
            } if (_type, predicate_type, build_type) == (TYPE, PREDICATE_TYPE, BUILD_TYPE):
                directory, artifacts = _read_subjects(subjects)
                return cls(
                    uuid=_read_uuid(uuid),
                    job=job,
                    platform=platform,
                    script=script,
                    builder_id=builder_id,
                    started=_read_time(started),
                    finished=_read_time(finished),
                    signed=_read_time(signed),
                    result=parse_result(result),
                    directory=directory,
                    artifacts=artifacts,
                    predicate=predicate,
                )
        raise InvalidProvenance("the statement is not one about a build of builder-server")

    def is_on(self, platform: str) -> bool:
        """Return whether the build ran on that platform."""
        return self.platform == _shown(platform)

    def is_about(self, uuid: UUID, job: str) -> bool:
        """Return whether it is about that build."""
        return self.uuid == uuid and self.job == _shown(job)


def _read_uuid(value: str) -> UUID:
    try:
        return UUID(value)
    except ValueError as error:
        raise InvalidProvenance("the statement is about no build: its uuid is none") from error


def _read_time(value: str) -> Instant:
    moment = times.read(value)
    if moment is None:
        raise InvalidProvenance("a time in the statement is none")
    return moment


def _read_subjects(subjects: list[object]) -> tuple[str, dict[str, bytes] | None]:
    directory: str | None = None
    artifacts: dict[str, bytes] = {}
    for each in subjects:
        match each:
            case {"name": str(name), "digest": {"dirHash": str(digest)}} if (
                name == ALL and directory is None and _SHA256.fullmatch(digest)
            ):
                directory = digest
            case {"name": str(name), "digest": {"sha256": str(digest)}, **others} if _SHA256.fullmatch(digest):
                path = _read_path(name, others.get("annotations"))
                if path in artifacts:
                    raise InvalidProvenance("the statement names an artifact twice")
                artifacts[path] = bytes.fromhex(digest)
            case _:
                raise InvalidProvenance("a subject of the statement is neither an artifact nor the set of all")
    if directory is None:
        raise InvalidProvenance("the statement has no hash of all artifacts")
    if artifacts_hash(artifacts) == directory:
        return directory, artifacts
    if artifacts:
        raise InvalidProvenance("the statement contradicts itself: its artifacts have another hash")
    return directory, None


def _read_path(name: str, annotations: object) -> str:
    match annotations:
        case {"path_base64": str(encoded)}:
            try:
                path = text(base64.b64decode(encoded, validate=True))
            except ValueError as error:
                raise InvalidProvenance("a path of the statement is damaged") from error
            if _shown(path) != name:
                raise InvalidProvenance("a path of the statement contradicts itself")
            return path
    return name


def artifacts_hash(artifacts: Mapping[str, bytes]) -> str:
    """Return the hash of all artifacts, whose SHA-256 these are by their paths."""
    found = DirectoryHash()
    for path in sorted(map(raw, artifacts)):
        found.add(path, artifacts[text(path)])
    return found.hexdigest()
