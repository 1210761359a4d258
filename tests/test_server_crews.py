"""What servers tell each other of their workers."""

import json
from collections import Counter
from uuid import uuid4

import pytest
from attrs import asdict

from builder.extension.provisioning import Provision, TellProvision
from builder.model import Instant
from builder.needs import Capabilities
from builder_server import crews
from builder_server.crew import Crew
from builder_server.estimates import Worker
from builder_server.provisions import Told

KVM = Capabilities(frozenset({("kvm", "yes")}))
BIG = Capabilities(frozenset({("memory", "64"), ("label.gpu \udcff", "yes")}))


def worker(name: str, able: Capabilities = KVM, *, is_waiting: bool = True) -> Worker:
    return Worker(name=name, able=able, is_waiting=is_waiting)


def asked(platform: str) -> Told:
    request = TellProvision(platform=platform, provision=Provision(by="farm", engine="slurm", why_not=("no",)), keep=9)
    return Told(at=Instant(7), request=request)


def crew(**more: object) -> Crew:
    told = {
        "number": 3,
        "waiting": Counter(p1=2),
        "idle": Counter(p1=1),
        "drained": Counter({"p1": 1, "p\udcff": 1}),
        "unknown": Counter(p2=1),
        "pressed": Counter(p1=4),
        "workers": {"p1": [worker("a"), worker("b", BIG, is_waiting=False)]},
        "of_drained": frozenset({uuid4()}),
        "away": {uuid4(): Instant(5)},
        "asked": (asked("p1"),),
    }
    return Crew(**told | more)  # type: ignore[arg-type]


def test_what_is_told_is_understood() -> None:
    mine = crew()
    assert all(asdict(mine, recurse=False).values()), "or it is not tried"
    assert crews.of_text(crews.text_of(mine)) == mine
    assert crews.of_text("{}") == crews.of_text(crews.text_of(Crew())) == Crew()


def test_workers_that_are_alike_are_told_as_one() -> None:
    alike = [worker(name) for name in ("c", "b", "a")]
    told = crews.of_text(crews.text_of(crew(workers={"p1": [*alike, worker("0", is_waiting=False)]})))
    assert {*told.workers["p1"]} == {worker("a"), worker("0", is_waiting=False)}


def test_what_is_told_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crews, "MAX_KINDS", 3)
    monkeypatch.setattr(crews, "MAX_BUILDS", 2)
    monkeypatch.setattr(crews, "MAX_ASKED", 1)
    many = [worker(f"w{number}", Capabilities(frozenset({("memory", str(number))}))) for number in range(5)]
    uuids = [uuid4() for _ in range(5)]
    found = crews.of_text(
        crews.text_of(
            crew(
                workers={"p1": many},
                of_drained=frozenset(uuids),
                away=dict.fromkeys(uuids, Instant(1)),
                asked=(asked("p1"), asked("p2")),
            )
        )
    )
    assert (len(found.workers["p1"]), found.unknown["p1"]) == (3, 2)
    assert [each.request.platform for each in found.asked] == ["p1"]
    assert (len(found.of_drained), len(found.away)) == (2, 2)


@pytest.mark.parametrize("text", ["", "[]", '{"number": []}', '{"workers": {"p1": [1]}}', '{"away": {"x": 1}}'])
def test_what_another_version_tells_otherwise_is_nothing(text: str) -> None:
    assert crews.of_text(text) == Crew()


def test_what_another_version_tells_besides_is_passed_over() -> None:
    assert crews.of_text(json.dumps({"number": 3, "shoes": 6})) == Crew(number=3)


def test_what_another_version_tells_of_a_provisioner_hides_no_worker() -> None:
    assert crews.of_text(json.dumps({"number": 3, "asked": [[1, "MAA="], [1, "AAAA"]]})) == Crew(number=3)


def test_workers_of_several_servers_are_counted_together() -> None:
    one, other = crew(), crew(workers={"p1": [worker("c")], "p3": [worker("d")]})
    both = crews.together([one, other])
    assert (both.number, both.waiting, both.drained["p1"]) == (6, Counter(p1=4), 2)
    assert [each.name for each in both.workers["p1"]] == ["a", "b", "c"]
    assert [each.name for each in both.workers["p3"]] == ["d"]
    assert both.of_drained == one.of_drained | other.of_drained
    assert both.away == {**one.away, **other.away}
    assert both.asked == one.asked + other.asked
    assert crews.together([one]) is one
