"""Workers from Kubernetes: what is sent, and what the answers mean.

No cluster is here. What the API server of these tests does is written after the API reference of batch/v1 and core/v1
(https://kubernetes.io/docs/reference/kubernetes-api/), and both sides of the conversation are held against its schemas. What real ones
have answered is in test_provision_kubernetes_answers.py.
"""

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
import trustme
from attrs import define, evolve, field
from cluster import LAUNCH, POD, TICKET, valid
from trio.testing import MockClock

from builder_provision.configuration import EngineSettings
from builder_provision.engines.kubernetes import Kubernetes
from builder_provision.errors import EngineFailed, EngineSilent, InvalidFleet
from builder_provision.fleet import EngineState
from builder_provision.service import open_engine


@define
class ApiServer:
    """An API server with Jobs and pods; ``says`` answers something else, once."""

    jobs: dict[str, dict[str, Any]] = field(factory=dict)
    pods: dict[str, dict[str, Any]] = field(factory=dict)
    page: int = 500
    requests: list[httpx.Request] = field(factory=list)
    says: httpx.Response | Exception | None = None
    _version: int = 100

    def engine(self, **more: Any) -> Kubernetes:
        return Kubernetes(
            label="farm",
            url="https://api.example.org:6443",
            namespace="builds",
            transport=httpx.MockTransport(self),
            **more,
        )

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        if self.says is not None:
            said, self.says = self.says, None
            if isinstance(said, Exception):
                raise said
            return said
        match request.method, request.url.path.split("/"):
            case "POST", ["", "apis", "batch", "v1", "namespaces", "builds", "jobs"]:
                return self._make(valid(json.loads(request.content)))
            case "GET", ["", "apis", "batch", "v1", "namespaces", "builds", "jobs"]:
                return self._list(request, "batch/v1", "JobList", self.jobs)
            case "GET", ["", "api", "v1", "namespaces", "builds", "pods"]:
                return self._list(request, "v1", "PodList", self.pods)
            case "DELETE", ["", "apis", "batch", "v1", "namespaces", "builds", "jobs", name]:
                return self._remove(name, valid(json.loads(request.content)))
        return self._status(404, "NotFound", "the server could not find the requested resource")

    def _make(self, job: dict[str, Any]) -> httpx.Response:
        name = job["metadata"]["name"]
        self._version += 1
        job["metadata"] |= {
            "uid": f"e0a1{len(self.jobs):08}",
            "resourceVersion": str(self._version),
            "creationTimestamp": "2026-11-20T17:13:17Z",
        }
        self.jobs[name] = job
        return httpx.Response(201, json=job)

    def _list(self, request: httpx.Request, version: str, kind: str, items: dict[str, Any]) -> httpx.Response:
        assert request.url.params["labelSelector"] == "builder-provision/label=farm"
        begin = int(request.url.params.get("continue", "0"))
        end = begin + min(self.page, int(request.url.params["limit"]))
        found = list(items.values())[begin:end]
        metadata = {"resourceVersion": str(self._version)} | ({"continue": str(end)} if end < len(items) else {})
        # in a list the objects do not say what they are
        bare = [{key: value for key, value in each.items() if key not in ("kind", "apiVersion")} for each in found]
        return httpx.Response(
            200, json=valid({"kind": kind, "apiVersion": version, "metadata": metadata, "items": bare})
        )

    def _remove(self, name: str, options: dict[str, Any]) -> httpx.Response:
        if name not in self.jobs:
            return self._status(404, "NotFound", f'jobs.batch "{name}" not found')
        metadata = self.jobs[name]["metadata"]
        for key, expected in options["preconditions"].items():
            if metadata[key] != expected:
                return self._status(409, "Conflict", f'Operation cannot be fulfilled on Job.batch "{name}": {key}')
        del self.jobs[name]
        self.pods.pop(name, None)
        return httpx.Response(
            200, json=valid({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"})
        )

    @staticmethod
    def _status(code: int, reason: str, message: str) -> httpx.Response:
        said = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": message,
            "reason": reason,
            "code": code,
        }
        return httpx.Response(code, json=valid(said))

    # what a cluster does

    def change(self, name: str = TICKET.name, **status: Any) -> None:
        self._version += 1
        self.jobs[name]["metadata"]["resourceVersion"] = str(self._version)
        self.jobs[name]["status"] = status

    def pod(self, name: str = TICKET.name, **status: Any) -> None:
        self.pods[name] = {
            "metadata": {
                "name": f"{name}-x7k2p",
                "labels": {"batch.kubernetes.io/job-name": name, "job-name": name, "builder-provision/label": "farm"},
            },
            "spec": POD["spec"],
            "status": status,
        }


@pytest.fixture
def api() -> ApiServer:
    return ApiServer()


# --- what is sent --------------------------------------------------------------------------------------------------


def test_a_job_is_the_operators_pod_and_what_this_worker_needs() -> None:
    job = valid(ApiServer().engine().manifest(LAUNCH))
    assert job["metadata"]["name"] == TICKET.name
    assert job["spec"] | {"template": None} == {
        "backoffLimit": 0,
        "ttlSecondsAfterFinished": 300,
        "template": None,
    }
    pod = job["spec"]["template"]
    assert pod["metadata"]["labels"] == {
        "team": "builds",
        "builder-provision/label": "farm",
        "app.kubernetes.io/managed-by": "builder-provision",
    }
    assert pod["spec"]["restartPolicy"] == "Never"
    assert pod["spec"]["activeDeadlineSeconds"] == 21_600, "from when it has a node"
    assert pod["spec"]["automountServiceAccountToken"] is False
    assert pod["spec"]["nodeSelector"] == {"pool": "builders", "feature.node.kubernetes.io/kvm": "true", "fast": ""}
    worker, cache = pod["spec"]["containers"]
    assert worker == {
        "name": "worker",
        "image": "registry.example.org/builder-worker:1",
        "command": list(LAUNCH.words),
        "resources": {
            "requests": {"cpu": "4", "memory": "18205Mi"},
            "limits": {"ephemeral-storage": "20Gi", "cpu": "4", "memory": "18205Mi"},
        },
    }
    assert cache == POD["spec"]["containers"][1]
    assert "args" in POD["spec"]["containers"][0], "the template stays as it is"


def test_without_needs_the_operators_pod_is_left_alone() -> None:
    plain = evolve(LAUNCH, ticket=evolve(TICKET, needs=()), features=())
    pod = valid(ApiServer().engine().manifest(plain))["spec"]["template"]["spec"]
    assert pod["nodeSelector"] == {"pool": "builders"}
    assert pod["containers"][0]["resources"] == POD["spec"]["containers"][0]["resources"]


async def test_the_token_is_read_for_each_request(api: ApiServer, tmp_path: Path) -> None:
    token = tmp_path / "token"
    engine = api.engine(token=token)
    for text in ("one", "two"):
        token.write_text(f"{text}\n")
        await engine.list(())
        assert api.requests[-1].headers["Authorization"] == f"Bearer {text}"
    token.unlink()
    with pytest.raises(EngineFailed, match=r"can't read .*token: No such file"):
        await engine.list(())


# --- what is answered ----------------------------------------------------------------------------------------------


async def test_the_life_of_a_worker(api: ApiServer) -> None:
    engine = api.engine()
    await engine.ask(LAUNCH)
    (asked,) = await engine.list(())
    assert (asked.name, asked.platform, asked.needs, asked.asked_at, asked.time_limit) == (
        TICKET.name,
        "debian-12",
        TICKET.needs,
        TICKET.asked_at,
        TICKET.time_limit,
    )
    assert (asked.state, asked.reason, asked.started_at) == (EngineState.QUEUED, "no pod yet", None)
    api.change(active=1, ready=0, startTime="2026-11-20T17:13:18Z")
    api.pod(
        phase="Running",
        startTime="2026-11-20T17:13:20Z",
        containerStatuses=[_container({"running": {"startedAt": "2026-11-20T17:13:26Z"}}, ready=True)],
    )
    (asked,) = await engine.list(())
    assert (asked.state, asked.started_at) == (EngineState.STARTED, 1_795_194_806.0)
    api.change(
        succeeded=1,
        conditions=[{"type": "Complete", "status": "True", "lastTransitionTime": "2026-11-20T17:20:00Z"}],
    )
    assert await engine.list(()) == []


def _container(state: dict[str, Any], *, ready: bool = False) -> dict[str, Any]:
    return {
        "name": "worker",
        "image": "registry.example.org/builder-worker:1",
        "imageID": "",
        "ready": ready,
        "restartCount": 0,
        "state": state,
    }


async def test_lists_come_in_pages(api: ApiServer) -> None:
    engine = api.engine()
    for number in range(5):
        await engine.ask(evolve(LAUNCH, ticket=evolve(TICKET, name=f"farm-{number}")))
    api.page = 2
    assert [asked.name for asked in await engine.list(())] == [f"farm-{number}" for number in range(5)]


async def test_jobs_of_others_and_those_that_go_are_left_out(api: ApiServer) -> None:
    engine = api.engine()
    await engine.ask(LAUNCH)
    (job,) = api.jobs.values()
    job["metadata"]["annotations"] = {}
    assert await engine.list(()) == []
    job["metadata"]["annotations"] = {"builder-provision/ticket": '{"platform": "p", "needs": "a=b=c", "asked": 1}'}
    assert await engine.list(()) == []
    await engine.ask(LAUNCH)
    api.jobs[TICKET.name]["metadata"]["deletionTimestamp"] = "2026-11-20T17:14:00Z"
    assert await engine.list(()) == []


async def test_a_job_that_has_changed_is_not_removed_unless_it_must_be(api: ApiServer) -> None:
    engine = api.engine()
    await engine.ask(LAUNCH)
    (asked,) = await engine.list(())
    api.change(active=1, ready=1)  # its pod has started since
    await engine.remove(asked, may_have_begun=False)
    assert api.jobs.keys() == {TICKET.name}
    await engine.remove(asked, may_have_begun=True)
    assert api.jobs == {}
    await engine.remove(asked, may_have_begun=True)  # it has gone already
    assert json.loads(api.requests[-1].content)["propagationPolicy"] == "Background"


@pytest.mark.parametrize(
    ("says", "reason"),
    [
        (httpx.Response(502, html="<html>"), "kubernetes answers 502: no reason given"),
        (httpx.Response(404, text="404 page not found\n"), "kubernetes answers 404: 404 page not found"),
        (httpx.Response(200, text="<html>"), "kubernetes answers something else than an object: is it an API server?"),
        (httpx.ConnectError("Connection refused"), "kubernetes does not answer: Connection refused"),
        (httpx.ReadTimeout(""), "kubernetes does not answer: no answer for 60 s"),
    ],
)
async def test_an_api_server_that_does_not_do_it(api: ApiServer, says: Any, reason: str) -> None:
    api.says = says
    with pytest.raises(EngineFailed) as caught:
        await api.engine().list(())
    assert str(caught.value) == reason


async def test_an_answer_that_comes_by_bits_without_end_is_none(autojump_clock: MockClock) -> None:
    class Bits(httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            while True:
                await trio.sleep(30)
                yield b" "

    transport = httpx.MockTransport(lambda _request: httpx.Response(200, stream=Bits()))
    engine = Kubernetes(label="farm", url="https://api", namespace="builds", transport=transport)
    with pytest.raises(EngineSilent, match="no answer for 60 s"):
        await engine.list(())
    assert trio.current_time() == pytest.approx(60, abs=1)


# --- where it is ---------------------------------------------------------------------------------------------------


def test_it_is_told_where_the_cluster_is(tmp_path: Path) -> None:
    trustme.CA().cert_pem.write_to_path(tmp_path / "ca.pem")
    settings = EngineSettings(
        kind="kubernetes",
        url="https://api.example.org:6443/",
        namespace="builds",
        ca=str(tmp_path / "ca.pem"),
        token_file=str(tmp_path / "token"),
    )
    engine = open_engine(settings, "farm")
    assert isinstance(engine, Kubernetes)
    assert (engine.url, engine.namespace, engine.token) == (
        "https://api.example.org:6443",
        "builds",
        tmp_path / "token",
    )
    with pytest.raises(InvalidFleet, match="No such file"):
        open_engine(evolve(settings, ca=str(tmp_path / "none")), "farm")


@pytest.mark.parametrize(
    ("host", "url"), [("10.0.0.1", "https://10.0.0.1:443"), ("fd00::1", "https://[fd00::1]:443"), ("", None)]
)
def test_in_a_pod_it_finds_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str, url: str | None) -> None:
    from builder_provision.engines import kubernetes

    trustme.CA().cert_pem.write_to_path(tmp_path / "ca.crt")
    (tmp_path / "namespace").write_text("builds")
    monkeypatch.setattr(kubernetes, "ACCOUNT", tmp_path)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    make: Callable[[], Kubernetes] = lambda: Kubernetes.of(EngineSettings(kind="kubernetes"), "farm")  # noqa: E731
    if url is None:
        with pytest.raises(InvalidFleet, match="this is no pod"):
            make()
    else:
        assert (make().url, make().namespace, make().token) == (url, "builds", tmp_path / "token")
