"""Workers from Kubernetes: what becomes of the answers that API servers have given.

No cluster is here. The answers are single ones, of releases from 1.25 to 1.36 for the most part, found in public logs: cluster.py says
how they are kept. Each stands in a conversation as this engine has it: a worker is asked for, looked after, and removed.
"""

import json
from pathlib import Path
from typing import Any

import cluster
import httpx
import pytest
import trio
from attrs import evolve
from cluster import LAUNCH, TICKET, Answer, Conversation, answered_by, kept, listed, valid
from farm import run_client, start_server
from scripted import do, schedule

from builder.endpoint import Servers
from builder.extension.watching import PlatformState
from builder.model import Instant
from builder_client import provisions
from builder_provision import telling
from builder_provision.configuration import PlatformSettings
from builder_provision.engines.kubernetes import Kubernetes
from builder_provision.errors import EngineFailed
from builder_provision.fleet import Asked, EngineState
from builder_provision.keeper import Keeper
from builder_provision.ledger import Ledger
from builder_provision.link import Link

NOW = TICKET.asked_at + 40

HELD, QUEUED, STARTED = EngineState.HELD, EngineState.QUEUED, EngineState.STARTED


async def look(*names: str) -> list[Asked]:
    """Return what the engine makes of Jobs and pods that are listed."""
    jobs = [kept(name) for name in names if name.startswith("job-")]
    pods = [kept(name) for name in names if name.startswith("pod-")]
    return await answered_by(listed("Job", jobs), listed("Pod", pods)).list(())


def queue(asked: list[Asked], *why_not: str) -> str:
    """Return what ``builder-client queue`` says of workers."""
    now = Instant(round(NOW * 1000))
    told = telling.provision("farm", "kubernetes", asked, why_not, now=NOW, server_now=now)
    told.check()
    (line,) = provisions.lines(PlatformState(name="p1", waiting=0, busy=0, queued=1, provisions=(told,)), now)
    return line


# --- whether they are what the API is said to be -------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in cluster.names() if name.startswith(("job-", "pod-"))])
def test_objects_are_as_the_schemas_of_their_release_have_them(name: str) -> None:
    answer = Answer.named(name)
    assert answer.status in (200, 201, 404, 409)
    valid(answer.body, answer.schemas)


# --- a worker, from asking to its end ------------------------------------------------------------------------------


@pytest.mark.parametrize("created", ["job-created", "job-created-before-1.27"])
@pytest.mark.parametrize("removed", ["job-deleted", "job-deleted-with-finalizer", "job-gone"])
async def test_a_worker_is_asked_for_and_removed(created: str, removed: str) -> None:
    lists = listed("Job", [kept(created)]), listed("Pod", [])
    engine = answered_by(Answer.named(created), *lists, Answer.named(removed))
    assert await engine.ask(LAUNCH) == ""
    (asked,) = await engine.list(())
    assert (asked.name, asked.platform, asked.needs, asked.asked_at) == (
        TICKET.name,
        TICKET.platform,
        TICKET.needs,
        TICKET.asked_at,
    )
    assert (asked.state, asked.started_at) == (QUEUED, None)
    assert queue([asked]) == "asked kubernetes for 1 worker 40 s ago: 1 pending (no pod yet)"
    await engine.remove(asked, may_have_begun=False)
    said = kept(created)["metadata"]
    assert options(engine) == {"uid": said["uid"], "resourceVersion": said["resourceVersion"]}


def options(engine: Kubernetes) -> dict[str, str]:
    """Return on what condition something was removed last."""
    assert isinstance(engine.transport, httpx.MockTransport)
    assert isinstance(engine.transport.handler, Conversation)
    sent = json.loads(engine.transport.handler.requests[-1].content)
    assert (sent["kind"], sent["propagationPolicy"]) == ("DeleteOptions", "Background")
    conditions: dict[str, str] = sent["preconditions"]
    return conditions


async def test_one_that_has_changed_stays() -> None:
    lists = listed("Job", [kept("job-active")]), listed("Pod", [])
    engine = answered_by(*lists, Answer.named("job-changed-since"))
    (asked,) = await engine.list(())
    assert (asked.state, asked.reason) == (QUEUED, ""), "its pod was made, and has gone since"
    await engine.remove(asked, may_have_begun=False)


async def test_lists_that_took_too_long_begin_again() -> None:
    engine = answered_by(
        listed("Job", [kept("job-active")], go_on="eyJ2Ijoi"),
        Answer.named("list-expired"),
        listed("Job", [kept("job-active")]),
        listed("Pod", []),
    )
    with pytest.raises(EngineFailed, match=r"^kubernetes answers 410: The provided continue parameter is too old"):
        await engine.list(())
    assert len(await engine.list(())) == 1


@pytest.mark.parametrize("name", ["job-complete", "job-failed", "job-deadline-exceeded", "job-deleted-with-finalizer"])
async def test_jobs_that_are_over_are_gone(name: str) -> None:
    assert await look(name, "pod-succeeded") == []


@pytest.mark.parametrize("name", ["job-complete", "job-failed", "job-deadline-exceeded"])
async def test_jobs_that_are_about_to_end_are_there(name: str) -> None:
    """Since 1.31 a Job is over only once its pods have ended: a condition before says how it will be."""
    job = kept(name)
    job["status"]["conditions"].pop()
    (asked,) = await answered_by(listed("Job", [job]), listed("Pod", [kept("pod-running")])).list(())
    assert asked.state is STARTED


# --- how far it is -------------------------------------------------------------------------------------------------

NO_HOST = (
    'failed to pull and unpack image "registry.invalid/does-not-exist:v9": failed to resolve reference "registry.invalid/does-not-exist:v9": '
    'failed to do request: Head "https://registry.invalid/v2/does-not-exist/manifests/v9": dial tcp: lookup registry.invalid on '
    "10.0.0.1:53: no such host"
)
FITS_NOWHERE = "Unschedulable: 0/3 nodes are available: 1 node(s) had untolerated taint(s), 2 Insufficient cpu."


@pytest.mark.parametrize(
    ("name", "state", "reason", "since"),
    [
        ("pod-unschedulable", QUEUED, FITS_NOWHERE, None),
        (
            "pod-unschedulable-2024",
            QUEUED,
            "Unschedulable: 0/1 nodes are available: 1 node(s) had untolerated taint {key1: value1}.",
            None,
        ),
        ("pod-has-a-node", STARTED, "", "2026-08-22T16:20:18Z"),
        ("pod-being-created", STARTED, "ContainerCreating", "2026-08-13T22:32:57Z"),
        ("pod-image-fails", HELD, f"ErrImagePull: {NO_HOST}", "2026-08-12T20:45:53Z"),
        (
            "pod-image-back-off",
            HELD,
            'ImagePullBackOff: Back-off pulling image "registry.example.org/builder-worker:1"',
            "2023-11-11T17:01:40Z",
        ),
        (
            "pod-lacks-configmap",
            HELD,
            'CreateContainerConfigError: configmap "this-configmap-does-not-exist" not found',
            "2026-08-12T20:45:53Z",
        ),
        ("pod-init-fails", HELD, "CrashLoopBackOff", "2026-08-13T22:32:57Z"),
        ("pod-running", STARTED, "", "2026-08-15T11:23:04Z"),
        ("pod-running-before-1.27", STARTED, "", "2023-03-26T12:18:03Z"),
        ("pod-succeeded", STARTED, "", "2023-05-23T11:21:05Z"),
        ("pod-deadline-exceeded", STARTED, "", "2026-08-13T22:32:57Z"),
        ("pod-evicted", STARTED, "", "2026-08-22T22:04:21Z"),
        ("pod-out-of-memory", STARTED, "", "2020-04-24T20:46:48Z"),
    ],
)
async def test_how_far_a_pod_is(name: str, state: EngineState, reason: str, since: str | None) -> None:
    (asked,) = await look("job-active", name)
    started = None if asked.started_at is None else Instant(round(asked.started_at * 1000)).isoformat()
    assert (asked.state, asked.reason, started) == (state, reason, since)


async def test_a_job_that_is_held_back_says_so() -> None:
    """A queueing system above the Jobs lets one after the other have its pod."""
    (asked,) = await look("job-suspended")
    assert asked.state is QUEUED
    assert queue([asked]) == "asked kubernetes for 1 worker 40 s ago: 1 pending (JobSuspended: Job suspended)"


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("pod-unschedulable", f"1 pending ({FITS_NOWHERE})"),
        ("pod-being-created", "1 starting (ContainerCreating)"),
        (
            "pod-image-fails",
            "dial tcp: lookup registry.invalid on 10.0.0.1:53: no such host)",
        ),
        ("pod-image-not-found", "builder-worker:1.31: not found)"),
        ("pod-running", "1 starting"),
    ],
)
async def test_a_line_of_the_queue_says_what_an_operator_needs(name: str, line: str) -> None:
    said = queue(await look("job-active", name))
    assert said.startswith("asked kubernetes for 1 worker 40 s ago: 1 ")
    assert line in said
    assert len(said) <= 260


async def test_the_same_reason_of_several_pods_is_one() -> None:
    jobs, pods = [], []
    for number in range(3):
        job, pod = kept("job-active"), kept("pod-init-fails")
        job["metadata"]["name"] = name = f"farm-{number}"
        pod = json.loads(json.dumps(pod).replace(TICKET.name, name))
        jobs.append(job)
        pods.append(pod)
    asked = await answered_by(listed("Job", jobs), listed("Pod", pods)).list(())
    assert queue(asked) == "asked kubernetes for 3 workers 40 s ago: 3 pending (CrashLoopBackOff)"


# --- what is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (
            "quota-exceeded",
            (
                '403: jobs.batch "farm-…" is forbidden: exceeded quota: compute-quota, requested: count/jobs.batch=1, '
                "used: count/jobs.batch=10, limited: count/jobs.batch=10"
            ),
        ),
        (
            "not-allowed",
            (
                '403: jobs.batch is forbidden: User "system:serviceaccount:builder:builder-provision" cannot create resource "jobs" '
                'in API group "batch" in the namespace "builds"'
            ),
        ),
        ("name-taken", '409: jobs.batch "farm-…" already exists'),
        (
            "webhook-fails",
            (
                '500: Internal error occurred: failed calling webhook "jobs.policy.example.org": '
                'Post "https://policy.builder.svc:443/mutate?timeout=10s": Bad Gateway'
            ),
        ),
    ],
)
async def test_a_worker_is_refused(name: str, reason: str) -> None:
    with pytest.raises(EngineFailed) as caught:
        await answered_by(Answer.named(name)).ask(LAUNCH)
    assert str(caught.value) == f"kubernetes answers {reason}"
    line = queue([], f"kubernetes refused: {caught.value}")
    assert line.startswith("asked kubernetes for no worker: kubernetes refused: kubernetes answers ")
    assert line.endswith(reason[-60:])


async def test_a_long_refusal_is_told_with_its_begin_and_its_end() -> None:
    with pytest.raises(EngineFailed) as caught:
        await answered_by(Answer.named("invalid")).ask(LAUNCH)
    assert "metadata.generateName" in str(caught.value)
    assert "metadata.name" in str(caught.value), "the log has all of it"
    line = queue([], f"kubernetes refused: {caught.value}")
    assert (
        'kubernetes answers 422: Job.batch "FARM-6c6wr" is invalid: [metadata.generateName: Invalid value: "FARM-": a'
        in line
    )
    assert line.endswith("[a-z0-9])?)*')]")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("not-authenticated", "401: Unauthorized"),
        ("too-many-requests", "429: Too many requests, please try again later."),
        ("storage-starts", "429: storage is (re)initializing"),
        ("timeout", "504: Timeout: Too large resource version: 12313646, current: 12313645"),
    ],
)
async def test_a_list_fails(name: str, reason: str) -> None:
    engine = answered_by(Answer.named(name), listed("Job", [kept("job-active")]), listed("Pod", []))
    with pytest.raises(EngineFailed) as caught:
        await engine.list(())
    assert str(caught.value) == f"kubernetes answers {reason}"
    assert queue([], str(caught.value)) == f"asked kubernetes for no worker: kubernetes answers {reason}"
    assert len(await engine.list(())) == 1, "it goes on with the next round"


async def test_a_refusal_is_said_once_however_often_it_is_tried(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The API server names the Job, and each attempt has another name."""
    now = NOW
    quota = Answer.named("quota-exceeded")

    def api(request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            return listed("Job" if request.url.path == cluster.JOBS else "Pod", []).response()
        name = json.loads(request.content)["metadata"]["name"]
        body: dict[str, Any] = json.loads(json.dumps(quota.body).replace(TICKET.name, name))
        return evolve(quota, body=body).response()

    async with start_server(tmp_path) as server:
        await do(server, schedule("a"))
        keeper = Keeper(
            name="kubernetes",
            label="farm",
            engine=evolve(answered_by(), transport=httpx.MockTransport(api)),
            platforms={"p1": PlatformSettings(engine="kubernetes", most=1)},
            pods={"p1": cluster.POD},
            servers=Servers.of(server.remote, {}),
            ledger=Ledger(),
            now=lambda: now,
        )
        async with Link(keeper.servers) as link:
            for _ in range(2):
                await keeper.round(link)
                now += 600
        said = await trio.to_thread.run_sync(lambda: run_client(server, "queue"))
    assert keeper.counts["p1"].refused == 2
    assert [record.message for record in caplog.records if "refused a worker" in record.message] == [
        (
            'kubernetes refused a worker: kubernetes answers 403: jobs.batch "farm-…" is forbidden: exceeded quota: compute-quota, '
            "requested: count/jobs.batch=1, used: count/jobs.batch=10, limited: count/jobs.batch=10; next attempt in 15 s, "
            "then each within 15 min"
        )
    ]
    assert "limited: count/jobs.batch=10" in said.stdout.decode()
