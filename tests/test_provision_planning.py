"""How many workers are asked for, and which are given up."""

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from builder.extension.crew import Doing
from builder.needs import Need, of_text
from builder_provision.fleet import Asked, EngineState, Order, Standing, Waiting
from builder_provision.planning import COMING, DAY, LATER, LEAVING, MARGIN, OVERDUE, Plan, Situation, plan
from builder_provision.terms import Terms, able

NOW = 1_795_194_796.0
MIDNIGHT = 1_795_219_200.0

TERMS = Terms(
    most=8,
    has=of_text("sandbox=overlay memory>=2G"),
    features={"kvm": "kvm", "big-disk": "bigdisk"},
    most_of={"memory": 64 * 1024**3},
)


def waits(needs: str = "", age: float = 10.0, **more: float) -> Waiting:
    return Waiting(needs=of_text(needs), since=NOW - age, **more)


def asked(
    name: str = "w", needs: str = "", state: EngineState = EngineState.QUEUED, age: float = 10.0, **more: object
) -> Asked:
    started = NOW - age if state is EngineState.STARTED else None
    given = {"asked_at": NOW - age, "started_at": started} | more
    return Asked(name=name, platform="p", needs=of_text(needs), state=state, **given)  # type: ignore[arg-type]


def planned(terms: Terms = TERMS, **situation: object) -> Plan:
    return plan(terms, Situation(now=NOW, **situation))  # type: ignore[arg-type]


def needs_asked(found: Plan) -> list[str]:
    return [" ".join(map(str, order.needs)) for order in found.ask]


# --- asking --------------------------------------------------------------------------------------------------------


def test_each_job_that_waits_gets_a_worker_up_to_the_most() -> None:
    assert len(planned(waiting=[waits()] * 3).ask) == 3
    found = planned(waiting=[waits()] * 20)
    assert len(found.ask) == 8
    assert found.why_not == ("there may be 8 at once",)


def test_nothing_waits_nothing_is_asked_for() -> None:
    found = planned()
    assert (found.ask, found.remove, found.why_not) == ((), (), ())
    assert found.look_at == NOW + LATER


def test_what_a_job_needs_is_asked_for_and_what_every_worker_has_is_not() -> None:
    found = planned(waiting=[waits("kvm memory>=16G"), waits("memory>=1G sandbox=overlay"), waits("memory>=4G")])
    assert needs_asked(found) == ["kvm memory>=16G", "", "memory>=4G"]


def test_what_no_worker_can_have_is_said_and_not_asked_for() -> None:
    found = planned(waiting=[waits("gpu"), waits("memory>=65G"), waits("sandbox=podman kvm"), waits("arch=arm64")])
    assert found.ask == ()
    assert found.why_not == (
        "no worker can be asked for that has gpu",
        "no worker can be asked for that has memory>=65G",
        "no worker can be asked for that has sandbox=podman",
        "no worker can be asked for that has arch=arm64",
    )


def test_workers_that_come_are_counted_whatever_job_they_were_asked_for() -> None:
    coming = [asked("a"), asked("b", "kvm")]
    assert needs_asked(planned(waiting=[waits("kvm"), waits(), waits()], asked=coming)) == [""]
    # the plain one may take any plain job, and those with more stay for those that need it
    assert needs_asked(planned(waiting=[waits(), waits("kvm")], asked=coming)) == []
    # who needs kvm is not served by a worker that has none
    assert needs_asked(planned(waiting=[waits("kvm")], asked=[asked("a")])) == ["kvm"]


def test_a_worker_with_a_build_is_held_by_it() -> None:
    building = asked(state=EngineState.STARTED, doing=Doing.BUILDING)
    assert len(planned(waiting=[waits()], asked=[building]).ask) == 1
    assert len(planned(evolve(TERMS, most=1), waiting=[waits()], asked=[building]).ask) == 0


def test_a_worker_that_waits_takes_what_it_really_can() -> None:
    idle = asked(state=EngineState.STARTED, doing=Doing.WAITING, able=able(of_text("kvm")))
    assert planned(waiting=[waits("kvm")], asked=[idle]).ask == ()
    assert needs_asked(planned(waiting=[waits("big-disk")], asked=[idle])) == ["big-disk"]


def test_workers_that_stand_idle_are_capacity() -> None:
    free = Standing(able=able(of_text("kvm")), free_at=NOW)
    assert planned(waiting=[waits("kvm")], standing=[free]).ask == ()
    assert needs_asked(planned(waiting=[waits(), waits("kvm")], standing=[free])) == [""]


def test_the_least_are_there_without_any_job() -> None:
    terms = evolve(TERMS, least=2)
    assert len(planned(terms).ask) == 2
    assert planned(terms, asked=[asked("a"), asked("b")]).remove == ()
    assert len(planned(terms, waiting=[waits()] * 3).ask) == 3
    old = {"a": NOW - 999, "b": NOW - 999, "c": NOW - 999}
    found = planned(terms, asked=[asked(name) for name in "abc"], unneeded=old)
    assert [each.asked.name for each in found.remove] == ["c"]


# --- the waiting time to aim at ------------------------------------------------------------------------------------


def test_a_standing_worker_that_is_free_in_time_is_waited_for() -> None:
    terms = evolve(TERMS, aim=120.0)
    soon, late = Standing(able=able([]), free_at=NOW + 60), Standing(able=able([]), free_at=NOW + 600)
    assert planned(terms, waiting=[waits()], standing=[soon]).ask == ()
    assert len(planned(terms, waiting=[waits()], standing=[late]).ask) == 1
    assert len(planned(terms, waiting=[waits()]).ask) == 1, "nobody stands there for whom one could wait"


def test_a_standing_worker_takes_one_job_after_the_other() -> None:
    terms = evolve(TERMS, aim=120.0)
    soon = Standing(able=able([]), free_at=NOW + 20)
    assert planned(terms, waiting=[waits(expected=30.0)] * 3, standing=[soon]).ask == ()
    assert len(planned(terms, waiting=[waits(expected=30.0)] * 5, standing=[soon]).ask) == 1
    assert len(planned(terms, waiting=[waits()] * 3, standing=[soon]).ask) == 2, "nobody knows for how long"


def test_one_that_is_busy_for_nobody_knows_how_long_is_hoped_for_until_the_time_is_over() -> None:
    terms = evolve(TERMS, aim=120.0)
    busy = Standing(able=able([]), free_at=None)
    young = planned(terms, waiting=[waits(age=115)], standing=[busy])
    assert young.ask == ()
    assert young.look_at == NOW + 5
    assert len(planned(terms, waiting=[waits(age=120)], standing=[busy]).ask) == 1


# --- giving up -----------------------------------------------------------------------------------------------------


def test_what_nothing_waits_for_is_removed_once_it_has_cooled_down() -> None:
    coming = asked()
    found = planned(asked=[coming])
    assert found.remove == ()
    assert found.unneeded == {"w": NOW}
    assert planned(asked=[coming], unneeded={"w": NOW - 299}).look_at == NOW + 1
    (removal,) = planned(asked=[coming], unneeded={"w": NOW - 300}).remove
    assert not removal.may_have_begun
    assert planned(asked=[coming], waiting=[waits()], unneeded={"w": NOW - 300}).unneeded == {}


def test_one_that_has_started_leaves_by_itself() -> None:
    for doing in (None, Doing.WAITING, Doing.BUILDING):
        there = asked(state=EngineState.STARTED, doing=doing)
        assert planned(asked=[there], unneeded={"w": NOW - 999}).remove == ()


def test_what_hangs_is_removed_and_asked_for_again() -> None:
    never_came = asked(state=EngineState.STARTED, age=901)
    held = asked(state=EngineState.HELD, reason="BadConstraints", age=901)
    for hung in (never_came, held):
        found = planned(waiting=[waits()], asked=[hung])
        assert [each.asked for each in found.remove] == [hung]
        assert len(found.ask) == 1
        assert found.look_at == NOW + LEAVING
        assert not planned(evolve(TERMS, most=1), waiting=[waits()], asked=[hung]).ask, (
            "it has its place until it is gone"
        )
    assert planned(asked=[never_came]).remove[0].may_have_begun
    assert planned(asked=[held]).remove[0].reason == "it does not start: BadConstraints"
    found_room_late = evolve(held, asked_at=NOW - 90_000, started_at=NOW - 899)
    assert planned(waiting=[waits()], asked=[found_room_late]).remove == ()
    in_line = asked(state=EngineState.QUEUED, reason="Resources", age=90_000)
    assert planned(waiting=[waits()], asked=[in_line]).remove == ()


def test_one_that_has_left_the_server_is_on_its_way_out() -> None:
    leaving = asked(state=EngineState.STARTED, age=9000, left_at=NOW - 1)
    found = planned(waiting=[waits()], asked=[leaving])
    assert len(found.ask) == 1, "it takes no job any more"
    assert (found.remove, found.look_at) == ((), NOW + LEAVING)
    assert planned(evolve(TERMS, most=1), waiting=[waits()], asked=[leaving]).ask == (), (
        "and is there for as long as it is"
    )
    hangs = planned(asked=[evolve(leaving, left_at=NOW - 900)]).remove
    assert [each.reason for each in hangs] == ["it has left the server, and does not end"]


def test_what_outlives_its_time_is_removed_whatever_it_does() -> None:
    old = asked(state=EngineState.STARTED, age=3600 + OVERDUE, time_limit=3600.0, doing=Doing.BUILDING)
    assert planned(asked=[old]).remove[0].may_have_begun
    assert planned(asked=[evolve(old, started_at=NOW - 3600)]).remove == ()


# --- limits --------------------------------------------------------------------------------------------------------


def test_a_budget_that_is_spent_holds_until_the_day_is_over() -> None:
    terms = evolve(TERMS, budget=36_000.0)
    assert len(planned(terms, waiting=[waits()], spent=35_999.0).ask) == 1
    found = planned(terms, waiting=[waits()], spent=36_000.0)
    assert found.ask == ()
    assert found.why_not == ("the 10 worker hours of today are spent",)
    eve = plan(terms, Situation(now=MIDNIGHT - 5, spent=36_000.0))
    assert eve.look_at == MIDNIGHT
    assert MIDNIGHT % DAY == 0


def test_what_was_refused_is_asked_for_later_and_what_was_not_now() -> None:
    refused: dict[tuple[Need, ...], float] = {of_text("kvm"): NOW + 7}
    found = planned(waiting=[waits("kvm"), waits()], refused=refused)
    assert needs_asked(found) == [""]
    assert found.look_at == NOW + 7
    assert needs_asked(planned(waiting=[waits("kvm")], refused={of_text("kvm"): NOW})) == ["kvm"]


def test_the_time_asked_for_is_that_of_the_longest_job() -> None:
    found = planned(waiting=[waits(), waits(time_limit=86_400.0)])
    assert {order.time_limit for order in found.ask} == {86_400.0 + TERMS.cool_down + MARGIN}
    assert planned(waiting=[waits(time_limit=60.0)]).ask[0].time_limit == TERMS.time_limit


def test_it_looks_soon_while_workers_come() -> None:
    assert planned(waiting=[waits()]).look_at == NOW + COMING
    assert planned(asked=[asked(state=EngineState.STARTED, doing=Doing.BUILDING)]).look_at == NOW + LATER


# --- whatever happens ----------------------------------------------------------------------------------------------

_NEEDS = st.sampled_from(["", "kvm", "big-disk", "kvm memory>=4G", "memory>=16G", "gpu"])
_AGES = st.sampled_from([0.0, 5.0, 119.0, 120.0, 950.0, 90_000.0])
_WAITING = st.lists(st.builds(waits, _NEEDS, _AGES, expected=st.sampled_from([None, 30.0])), max_size=12)
_STANDING = st.lists(
    st.builds(
        Standing,
        able=_NEEDS.map(lambda needs: able(of_text(needs))),
        free_at=st.sampled_from([NOW, NOW + 60, NOW + 6000, None]),
    ),
    max_size=4,
)
_TERMS = st.builds(
    lambda least, most, aim, budget: evolve(TERMS, least=min(least, most), most=most, aim=aim, budget=budget),
    st.integers(0, 3),
    st.integers(1, 10),
    st.sampled_from([0.0, 120.0]),
    st.sampled_from([None, 3600.0]),
)


@st.composite
def _asked(draw: st.DrawFn) -> list[Asked]:
    states = draw(st.lists(st.sampled_from(EngineState), max_size=8))
    found = []
    for number, state in enumerate(states):
        doing = draw(st.sampled_from([None, *Doing])) if state is EngineState.STARTED else None
        needs = draw(st.sampled_from(["", "kvm", "memory>=16G"]))
        able_to = able([*TERMS.has, *of_text(needs)]) if doing else None
        found.append(asked(f"w{number}", needs, state, draw(_AGES), doing=doing, able=able_to))
    return found


@st.composite
def _situations(draw: st.DrawFn) -> Situation:
    workers = draw(_asked())
    unneeded = {each.name: NOW - draw(st.sampled_from([1.0, 999.0])) for each in workers if draw(st.booleans())}
    return Situation(
        now=NOW,
        waiting=draw(_WAITING),
        standing=draw(_STANDING),
        asked=workers,
        spent=draw(st.sampled_from([0.0, 3600.0])),
        refused=draw(st.dictionaries(_NEEDS.map(of_text), st.sampled_from([NOW - 1, NOW + 9]), max_size=2)),
        unneeded=unneeded,
    )


@given(_TERMS, _situations())
def test_bounds_hold(terms: Terms, situation: Situation) -> None:
    found = plan(terms, situation)
    left = len(situation.asked) - len(found.remove)
    assert len(found.ask) <= max(len(situation.waiting), terms.least), "no more than there is to do"
    assert not found.ask or len(situation.asked) + len(found.ask) <= terms.most
    if terms.budget is not None and situation.spent >= terms.budget:
        assert not found.ask
    for removal in found.remove:
        assert removal.asked in situation.asked
        assert removal.may_have_begun or removal.asked.state is not EngineState.STARTED, (
            "a build is ended by its time alone"
        )
    assert left + len(found.ask) >= min(terms.least, left) or not found.ask
    assert found.look_at > NOW
    for order in found.ask:
        assert not terms.beyond(order.needs)
        assert situation.refused.get(order.needs, 0.0) <= NOW


@given(_TERMS, _situations())
def test_what_was_asked_for_is_not_asked_for_again(terms: Terms, situation: Situation) -> None:
    found = plan(terms, situation)
    gone = {removal.asked.name for removal in found.remove}
    new = [
        Asked(name=f"n{number}", platform="p", needs=order.needs, state=EngineState.QUEUED, asked_at=NOW)
        for number, order in enumerate(found.ask)
    ]
    stay = [each for each in situation.asked if each.name not in gone]
    after = plan(terms, evolve(situation, asked=[*stay, *new], unneeded=found.unneeded))
    if len(stay) + len(new) < terms.most:  # otherwise others of the same queue wait for their turn
        assert after.ask == ()
    assert not {each.asked.name for each in after.remove} & {each.name for each in new}


@given(_TERMS, st.lists(_NEEDS, min_size=1, max_size=8))
def test_every_job_that_can_be_served_is_served_in_the_end(terms: Terms, needs: list[str]) -> None:
    """Workers come, each takes the first job that it can and goes, and others are asked for: until nothing is left."""
    waiting = [waits(each) for each in needs]
    terms = evolve(terms, budget=None)
    for _ in range(2 * len(needs)):
        for order in plan(terms, Situation(now=NOW, waiting=waiting)).ask:
            there = terms.of_asked(order.needs)
            taken = next((entry for entry in waiting if not there.lacks(entry.needs)), None)
            if taken is not None:
                waiting.remove(taken)
    assert {" ".join(map(str, entry.needs)) for entry in waiting} <= {"gpu"}


def test_orders_are_values() -> None:
    assert Order(time_limit=1.0) == Order(needs=(), time_limit=1.0)
