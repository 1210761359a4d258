"""What the servers of a farm tell each other of their workers, as a text in the database that each renews."""

import contextlib
import json
from base64 import b64decode, b64encode
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any
from uuid import UUID

from attrs import Factory, fields

from builder import codec
from builder.errors import BuilderError
from builder.extension.provisioning import TellProvision
from builder.model import Instant
from builder.needs import Capabilities
from builder_server.crew import Crew
from builder_server.estimates import Worker
from builder_server.provisions import Told

MAX_KINDS = 200
"""Workers that differ in what they have, or do, of which a text tells; of the others it is unknown what they have."""

MAX_BUILDS = 1000
"""Builds whose worker is away, or drained, of which it tells."""

MAX_ASKED = 200
"""Platforms of which it tells what a provisioner has asked for there."""

_COUNTS = tuple(each.name for each in fields(Crew) if each.default == Factory(Counter))
"""What is counted for each platform."""


def text_of(crew: Crew) -> str:
    """Return what others are told of a server's workers; those that are alike are told as one."""
    workers, unknown = _kinds(crew.workers), Counter(crew.unknown)
    told = defaultdict[str, list[Any]](list)
    for number, (platform, worker) in enumerate((name, each) for name, found in workers.items() for each in found):
        if number < MAX_KINDS:
            told[platform].append([worker.name, worker.is_waiting, dict(sorted(worker.able.facts))])
        else:
            unknown[platform] += 1
    plain = {
        "number": crew.number,
        **{name: getattr(crew, name) for name in _COUNTS},
        "unknown": unknown,
        "workers": told,
        "of_drained": sorted(map(str, crew.of_drained))[:MAX_BUILDS],
        "away": {str(uuid): since.ms for uuid, since in [*crew.away.items()][:MAX_BUILDS]},
        "asked": [
            [each.at.ms, b64encode(codec.encode(each.request)).decode("ascii")] for each in crew.asked[:MAX_ASKED]
        ],
    }
    return json.dumps({name: value for name, value in plain.items() if value}, sort_keys=True)


def of_text(text: str) -> Crew:
    """Return what such a text tells: nothing, if it is of a version that tells it otherwise."""
    try:
        plain = json.loads(text)
        return Crew(
            number=int(plain.get("number", 0)),
            **{name: Counter(plain.get(name, {})) for name in _COUNTS},
            workers={
                platform: [
                    Worker(name=name, is_waiting=is_waiting, able=Capabilities(frozenset(facts.items())))
                    for name, is_waiting, facts in found
                ]
                for platform, found in plain.get("workers", {}).items()
            },
            of_drained=frozenset(map(UUID, plain.get("of_drained", ()))),
            away={UUID(uuid): Instant(since) for uuid, since in plain.get("away", {}).items()},
            asked=tuple(_told(plain.get("asked", ()))),
        )
    except (ValueError, TypeError, AttributeError):
        return Crew()


def _told(plain: Iterable[tuple[int, str]]) -> Iterator[Told]:
    """Return what provisioners have told, as far as this version knows it."""
    for at, data in plain:
        with contextlib.suppress(BuilderError):
            request = codec.decode(b64decode(data))
            if isinstance(request, TellProvision):
                yield Told(at=Instant(at), request=request)


def together(crews: Sequence[Crew]) -> Crew:
    """Return the workers of several servers as those of one."""
    if len(crews) == 1:
        return crews[0]
    workers = defaultdict[str, list[Worker]](list)
    for crew in crews:
        for platform, found in crew.workers.items():
            workers[platform] += found
    return Crew(
        number=sum(crew.number for crew in crews),
        **{name: sum((getattr(crew, name) for crew in crews), Counter[str]()) for name in _COUNTS},
        workers=workers,
        of_drained=frozenset[UUID]().union(*(crew.of_drained for crew in crews)),
        away={uuid: since for crew in crews for uuid, since in crew.away.items()},
        asked=tuple(each for crew in crews for each in crew.asked),
    )


def _kinds(workers: Mapping[str, Sequence[Worker]]) -> dict[str, list[Worker]]:
    """Return one of all workers that have and do the same, the first by name."""
    return {
        platform: sorted(
            {(each.able, each.is_waiting): each for each in sorted(found, key=_name, reverse=True)}.values(), key=_name
        )
        for platform, found in workers.items()
    }


def _name(worker: Worker) -> str:
    return worker.name
