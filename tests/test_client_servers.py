"""``servers``, and what ``info`` says of them."""

from attrs import evolve

from builder.extension.servers import ServerEntry, ServersListed
from builder.model import Instant
from builder_client import servers

NOW = Instant(1_795_000_000_000)


def entry(name: str, **more: object) -> ServerEntry:
    told = {
        "name": name,
        "release": "1.0",
        "since": Instant(NOW.ms - 3_600_000),
        "is_alive": True,
        "keeps_schedule": False,
        "is_drained": False,
        "workers": 3,
        "run": 2,
        "address": f"{name}.example.org:1234",
        "heard": Instant(NOW.ms - 3000),
    }
    return ServerEntry(**told | more)  # type: ignore[arg-type]


FARM = ServersListed(
    now=NOW,
    here="a",
    servers=(
        entry("a", keeps_schedule=True),
        entry("b", is_drained=True, release="1.1"),
        entry("c\n", is_alive=False, address=None),
    ),
)
ALONE = ServersListed(now=NOW, here="main", servers=(entry("main", heard=None, address=None, keeps_schedule=True),))


def test_rows() -> None:
    assert [servers.row(each, NOW) for each in FARM.servers] == [
        ("a", "works, keeps the schedule", "3 s ago", "3", "2", "1 h", "1.0", "a.example.org:1234"),
        ("b", "works, drained", "3 s ago", "3", "2", "1 h", "1.1", "b.example.org:1234"),
        ("c\\n", "gone", "3 s ago", "3", "2", "", "1.0", ""),
    ]
    assert servers.row(ALONE.servers[0], NOW)[:3] == ("main", "works, keeps the schedule", "always")


def test_a_sentence_where_there_are_several() -> None:
    assert servers.sentence(FARM) == "Servers: a (this one), b, c\\n; gone: c\\n"
    assert servers.sentence(ALONE) == ""


def test_different_versions_are_told() -> None:
    assert servers.differing(FARM) == "The servers run different versions: 1.0, 1.1"
    assert servers.differing(ALONE) == ""


def test_those_that_others_can_not_reach_are_told() -> None:
    assert servers.unreachable(FARM) == servers.unreachable(ALONE) == ""
    mute = evolve(FARM, servers=tuple(evolve(each, address=None) for each in FARM.servers))
    assert servers.unreachable(mute) == "Without --advertise the others can't reach: a, b"


def test_json() -> None:
    assert servers.json(FARM.servers[1], FARM) == {
        "server": "b",
        "address": "b.example.org:1234",
        "version": "1.1",
        "since": "2026-11-18T10:06:40Z",
        "heard": "2026-11-18T11:06:37Z",
        "alive": True,
        "keeps_schedule": False,
        "drained": True,
        "workers": 3,
        "running": 2,
        "here": False,
    }
    assert servers.json(ALONE.servers[0], ALONE)["here"]
