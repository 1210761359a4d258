"""What a search begins with: ``python -m fuzz.seeds CORPUS`` writes the recordings of the original, and messages of ours."""

import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from vectors import DATA

from builder import codec, execution
from builder.extension.working import AskJob, GiveUp, Return
from builder.framing import frame
from builder.messages import Hello, JobFinished, Output, Role
from builder.model import Artifact, ConsoleLine, Execution, Exited, Instant, ScriptJob
from builder.outputs import Outputs
from builder.provenance.envelope import PAYLOAD_TYPE, Envelope, Signature
from builder.provenance.keys import SigningKey
from builder.provenance.statement import Attested, Subject, Subjects, encode
from builder_worker.spool import _HEADER
from fuzz.properties import (
    BUILD,
    PROPERTIES,
    connection,
    kept_console,
    keys,
    lines,
    message,
    provenance,
    record,
    result,
    spool,
    state,
)

KEY = SigningKey.make(Instant(0))
NO_SIGNATURE = Signature(key_id="x", signature=bytes(64))

FACTS = Attested(
    builder_id="urn:x",
    uuid=BUILD,
    job="a",
    platform="p",
    script_sha256=bytes(32),
    started=Instant(0),
    finished=Instant(5),
    signed=Instant(6),
    result=Exited(code=0),
)


def _statement() -> bytes:
    subjects = Subjects()
    subjects.add([Subject(path="a/b", sha256=bytes(32)), Subject(path="\udcff", sha256=bytes(32))])
    return encode(FACTS, subjects)


def seeds() -> Iterator[bytes]:
    """Yield files of a corpus."""
    artifacts = (Artifact(path="a/b", content=b"x" * 40), Artifact(path="c", content=b""))
    finished = codec.encode(JobFinished(uuid=BUILD, result=Exited(code=0), artifacts=artifacts))
    execution_ = Execution(
        job=ScriptJob(name="a", platform="p", script=b"#!/bin/sh"),
        uuid=BUILD,
        console=(ConsoleLine(delta=1, line=b"x"), ConsoleLine(delta=300, line=b"")),
        started=Instant(0),
        finished=Instant(5),
        result=Exited(code=0),
        artifacts=artifacts,
    )
    outputs = Outputs(BUILD)
    untimed = outputs.join([b"a", b"", b"b" * 200])
    timed = outputs.join([b"a", b"bc"], 5) + outputs.join([b"later"], 70_000)
    hello = frame(codec.encode(Hello(role=Role.WORKER, version=100)))
    ask = frame(codec.encode(AskJob(platform="p", worker="w")))
    back = frame(codec.encode(Return(uuid=BUILD, secret=bytes(32), elapsed=7)))
    give_up = frame(codec.encode(GiveUp(uuid=BUILD, reason="no")))
    odd = frame(codec.encode(Output(uuid=BUILD, line=b"z", timestamp=2**61)))
    for property_, data in (
        *((message, each) for each in (finished, untimed[8:40])),
        (record, execution.encode(execution_)),
        (result, finished),
        *((lines, each) for each in (untimed, timed, timed + untimed, timed + odd)),
        (connection, hello + ask + timed + frame(finished)),
        (connection, hello + back + timed + give_up),
        *((kept_console, each) for each in (timed, timed[:-3], timed + bytes(40))),
        (provenance, Envelope.sign(_statement(), [KEY]).encode()),
        (provenance, Envelope(payload=_statement(), payload_type=PAYLOAD_TYPE, signatures=(NO_SIGNATURE,)).encode()),
        *((keys, str(each).encode()) for each in (KEY, KEY.public, KEY.until(Instant(10**12)))),
        (spool, _HEADER.pack(9, False, 3, len(timed)) + timed + _HEADER.pack(12, True, 1, 500)),
    ):
        yield bytes([PROPERTIES.index(property_)]) + data
    for kind, property_ in (("cmd", message), ("state", state), ("exec", record)):
        for name in (kind, f"{kind}-decode"):
            for each in (DATA / "vectors" / f"{name}.jsonl").read_text("utf-8").splitlines():
                yield bytes([PROPERTIES.index(property_)]) + bytes.fromhex(json.loads(each)["hex"])


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    for seed in seeds():
        (target / hashlib.sha256(seed).hexdigest()[:16]).write_bytes(seed)
