"""What is signed of a build, as it is told from what the database has of it.

Loaded when something is to be signed: with the libraries for that it takes as long as a tenth of the server's start.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from builder import __version__
from builder.model import Instant
from builder.provenance.envelope import Envelope
from builder.provenance.keys import SigningKey
from builder.provenance.statement import Attested, Subject, Subjects, encode
from builder_server.keyring import Keyring
from builder_server.store import Signable, StoredArtifact

__all__ = ["Keyring", "Subjects", "add", "sign"]

T = TypeVar("T")


def add(subjects: Subjects, artifacts: Iterable[StoredArtifact]) -> None:
    """Take some more artifacts, in the order of the bytes of their paths."""
    subjects.add(Subject(path=each.path, sha256=each.sha256) for each in artifacts)


def sign(build: Signable, subjects: Subjects, keys: Sequence[SigningKey], *, builder_id: str, now: Instant) -> bytes:
    """Return the envelope of a build."""
    return Envelope.sign(encode(_attested(build, builder_id, now), subjects), keys).encode()


def _attested(build: Signable, builder_id: str, now: Instant) -> Attested:
    limits = {"time": build.time_limit, "silence": build.max_silent}
    worker = {"name": build.worker_name, "peer": build.worker}  # with the holder of its certificate
    told = dict(build.facts)
    version = told.pop("version", None)
    return Attested(
        builder_id=builder_id,
        uuid=build.uuid,
        job=build.name,
        platform=build.platform,
        script_sha256=hashlib.sha256(build.script).digest(),
        started=build.started,
        finished=build.finished,
        signed=now,
        result=build.result,
        ended_by=build.ended_by,
        template=build.template,
        opam_package=build.opam_package,
        limits=_known(limits),
        worker=_known(worker),
        told=told,
        versions={"builder-server": __version__, **_known({"builder-worker": version})},
    )


def _known(values: Mapping[str, T | None]) -> dict[str, T]:
    return {name: value for name, value in values.items() if value is not None}
