"""Kubernetes: a Job with one pod for each worker, by the API server.

What is sent and read follows the API reference, groups batch/v1 and core/v1: https://kubernetes.io/docs/reference/kubernetes-api/.
A Job bears the name of its worker, a label that marks all of them, and in annotations what was asked for.
"""

import copy
import datetime as dt
import json
import os
import re
import ssl
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import trio
from attrs import define, field

from builder.errors import InvalidOptions
from builder.model import printable
from builder.needs import of_text, text_of
from builder.reasons import reason_of
from builder_provision.configuration import EngineSettings
from builder_provision.engines import TIMEOUT, Launch
from builder_provision.errors import EngineFailed, EngineSilent, InvalidFleet
from builder_provision.fleet import Asked, EngineState, Ticket
from builder_provision.quantities import amount, memory

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where a pod finds the token, the authority and the namespace of its service account."""

MARK = "builder-provision/label"
"""The label of all Jobs and pods: its value is the provisioner's."""

TOLD = "builder-provision/ticket"
"""The annotation of a Job with what was asked for, as JSON."""

KEPT = 300
"""Seconds for which a Job that is over is kept by the cluster, for who wants to know why."""

PAGE = 500
"""Objects of a page of a list."""

MAX_PAGES = 200
MAX_ANSWER = 64 * 1024**2
"""Most that is read of a list, in pages and in bytes of one."""

MAX_MESSAGE = 1000
"""Characters that are quoted of the API server."""

IN_LINE = frozenset({"ContainerCreating", "PodInitializing"})
"""Why a container waits that is about to start. Whatever else a kubelet says, it could not start it."""

NO_POD = "no pod yet"
"""What is told of a Job that does not say why."""


def _token_of(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        return path.read_text("ascii").strip()
    except (OSError, ValueError) as error:
        raise EngineFailed(f"can't read {path}: {getattr(error, 'strerror', None) or 'it is no token'}") from error


@define(kw_only=True)
class Kubernetes:
    """``token`` is a file, read for each request: a token of a service account is renewed there."""

    label: str
    url: str
    namespace: str
    token: Path | None = None
    verify: ssl.SSLContext | bool = True
    transport: httpx.AsyncBaseTransport | None = None
    _versions: dict[str, tuple[str, str]] = field(init=False, factory=dict)
    """By the name of a Job its uid and the version that was listed."""

    @classmethod
    def of(cls, settings: EngineSettings, label: str) -> "Kubernetes":
        """Return the cluster that is described, or this pod's own. Raises InvalidFleet."""
        host, port = (os.environ.get(f"KUBERNETES_SERVICE_{name}", "") for name in ("HOST", "PORT"))
        own = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}" if host else None
        url = settings.url or own
        if url is None:
            raise InvalidFleet("kubernetes: this is no pod: write url, namespace, ca and token-file")
        ca = Path(settings.ca) if settings.ca else ACCOUNT / "ca.crt"
        try:
            namespace = settings.namespace or (ACCOUNT / "namespace").read_text("ascii").strip()
            context = ssl.create_default_context(cafile=str(ca))
            if settings.cert and settings.key:
                context.load_cert_chain(settings.cert, settings.key)
        except OSError as error:
            raise InvalidFleet(f"kubernetes: {error.filename or ca}: {reason_of(error)}") from error
        token = Path(settings.token_file) if settings.token_file else None if settings.cert else ACCOUNT / "token"
        return cls(label=label, url=url.rstrip("/"), namespace=namespace, token=token, verify=context)

    # --- the interface ---------------------------------------------------------------------------------------------

    async def ask(self, launch: Launch) -> str:
        """Make a Job. Raises EngineFailed."""
        try:
            await self._request("POST", self._jobs, json=self.manifest(launch))
        except EngineFailed as error:
            # an API server names the Job: what it says is the same of the next attempt, with another name
            raise EngineFailed(str(error).replace(launch.ticket.name, f"{self.label}-…")) from error
        return ""

    async def list(self, known: Sequence[Ticket]) -> list[Asked]:
        """Return the workers whose Jobs are not over. Raises EngineFailed."""
        del known  # the Jobs say all that has to be known
        jobs = [job async for job in self._all(self._jobs)]
        pods = {_name_of_job(pod): pod async for pod in self._all(f"/api/v1/namespaces/{self.namespace}/pods")}
        self._versions = {
            job["metadata"]["name"]: (job["metadata"]["uid"], job["metadata"]["resourceVersion"]) for job in jobs
        }
        return [asked for job in jobs if (asked := _asked(job, pods.get(job["metadata"]["name"]))) is not None]

    async def remove(self, asked: Asked, *, may_have_begun: bool) -> None:
        """Remove a Job and its pod, unless the Job has changed since it was listed. Raises EngineFailed."""
        options: dict[str, Any] = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
        uid, listed = self._versions.get(asked.name, (None, None))
        if uid is not None:
            options["preconditions"] = {"uid": uid} | ({} if may_have_begun else {"resourceVersion": listed})
        await self._request("DELETE", f"{self._jobs}/{asked.name}", json=options, but_for=(404, 409))

    def manifest(self, launch: Launch) -> dict[str, Any]:
        """Return the Job of a worker: the operator's pod, with what this worker needs besides."""
        ticket, pod = launch.ticket, copy.deepcopy(launch.pod)
        assert pod is not None, "the file was looked at"
        marks = {MARK: self.label, "app.kubernetes.io/managed-by": "builder-provision"}
        metadata: Any = pod.setdefault("metadata", {})
        metadata["labels"] = {**metadata.get("labels", {}), **marks}
        spec: Any = pod["spec"]
        spec["restartPolicy"] = "Never"
        # of the pod and not of the Job, whose time begins before there is a node
        spec["activeDeadlineSeconds"] = round(ticket.time_limit)
        spec.setdefault("automountServiceAccountToken", False)  # a job has nothing to ask of the cluster
        if launch.features:
            spec["nodeSelector"] = {**spec.get("nodeSelector", {}), **dict(map(_selected, launch.features))}
        container = spec["containers"][0]
        container["command"] = list(launch.words)
        container.pop("args", None)
        amounts: dict[str, Any] = {}
        if (mebibytes := memory(ticket.needs)) is not None:
            amounts["memory"] = f"{mebibytes}Mi"
        if (cores := amount(ticket.needs, "cores")) is not None:
            amounts["cpu"] = str(cores)
        if amounts:
            resources = container.setdefault("resources", {})
            for kind in ("requests", "limits"):
                resources[kind] = {**resources.get(kind, {}), **amounts}
        told = {"platform": ticket.platform, "needs": text_of(ticket.needs), "asked": ticket.asked_at}
        return {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {
                "name": ticket.name,
                "namespace": self.namespace,
                "labels": marks,
                "annotations": {TOLD: json.dumps(told)},
            },
            "spec": {
                "backoffLimit": 0,
                "ttlSecondsAfterFinished": KEPT,
                "template": pod,
            },
        }

    # --- the conversation ------------------------------------------------------------------------------------------

    @property
    def _jobs(self) -> str:
        return f"/apis/batch/v1/namespaces/{self.namespace}/jobs"

    async def _all(self, path: str) -> Any:
        """Yield all objects that are marked, from as many pages as there are."""
        go_on = ""
        for _ in range(MAX_PAGES):
            wanted = {"labelSelector": f"{MARK}={self.label}", "limit": str(PAGE)} | (
                {"continue": go_on} if go_on else {}
            )
            page = await self._request("GET", path, params=wanted)
            for item in page.get("items") or ():
                yield item
            if not (go_on := (page.get("metadata") or {}).get("continue") or ""):
                return
        raise EngineFailed(f"kubernetes lists more than {MAX_PAGES * PAGE} objects")

    async def _request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        json: object = None,
        but_for: tuple[int, ...] = (),
    ) -> Any:
        """Return the answer, which is JSON. Raises EngineFailed, unless it is one of the statuses ``but_for``."""
        token = _token_of(self.token)
        headers = {"Accept": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
        try:
            with trio.fail_after(TIMEOUT):  # httpx would wait for each part of an answer anew
                async with (
                    httpx.AsyncClient(
                        base_url=self.url,
                        verify=self.verify,
                        transport=self.transport,
                        trust_env=False,
                        timeout=TIMEOUT,
                    ) as client,
                    client.stream(method, path, params=params, json=json, headers=headers) as answer,
                ):
                    body = bytearray()
                    async for piece in answer.aiter_bytes():
                        body += piece
                        if len(body) > MAX_ANSWER:
                            raise EngineFailed(f"kubernetes answers more than {MAX_ANSWER // 1024**2} MiB")
        except httpx.ConnectError as error:
            raise EngineFailed(f"kubernetes does not answer: {_why(error)}") from error
        except (httpx.HTTPError, trio.TooSlowError) as error:
            raise EngineSilent(f"kubernetes does not answer: {_why(error)}") from error
        said = _json(bytes(body))
        if answer.is_success or answer.status_code in but_for:
            if not isinstance(said, dict):
                raise EngineFailed("kubernetes answers something else than an object: is it an API server?")
            return said
        reason = said.get("message") if isinstance(said, dict) else _text(answer, bytes(body))
        raise EngineFailed(f"kubernetes answers {answer.status_code}: {_quoted(str(reason or 'no reason given'))}")


def _why(error: Exception) -> str:
    return str(error) or f"no answer for {TIMEOUT:g} s"


def _text(answer: httpx.Response, body: bytes) -> str:
    """Return what is told as text: by an API server that is overloaded, and of a path that it does not know."""
    is_text = answer.headers.get("Content-Type", "").startswith("text/plain")
    return body.decode(errors="replace") if is_text else ""


def _quoted(message: str) -> str:
    """Return what an API server says as a line of a log."""
    return printable(" ".join(message[:MAX_MESSAGE].split()))


def _json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        return None


_SELECTED = re.compile(r"([^=]+)=([^=]*)")


def _selected(feature: str) -> tuple[str, str]:
    """Return a feature as a label of a node, and its value."""
    match = _SELECTED.fullmatch(feature)
    return (match[1], match[2]) if match else (feature, "")


# --- what the objects say ------------------------------------------------------------------------------------------


def _name_of_job(pod: Mapping[str, Any]) -> str:
    found: Mapping[str, str] = pod["metadata"].get("labels") or {}
    return found.get("batch.kubernetes.io/job-name") or found.get("job-name") or ""


def _asked(job: Mapping[str, Any], pod: Mapping[str, Any] | None) -> Asked | None:
    """Return the worker of a Job; None of one that is over, or was made by somebody else."""
    metadata = job["metadata"]
    if metadata.get("deletionTimestamp") or _is(job, "Complete") or _is(job, "Failed"):
        return None
    try:
        said = json.loads(metadata["annotations"][TOLD])
        platform, needs, asked_at = str(said["platform"]), of_text(said["needs"]), float(said["asked"])
    except (ValueError, TypeError, KeyError, InvalidOptions):
        return None
    state, reason, started_at = _progress(pod) if pod is not None else (EngineState.QUEUED, _why_no_pod(job), None)
    return Asked(
        name=metadata["name"],
        platform=platform,
        needs=needs,
        state=state,
        reason=_quoted(reason),
        asked_at=asked_at,
        started_at=started_at,
        time_limit=float(job["spec"]["template"]["spec"].get("activeDeadlineSeconds") or 0) or None,
    )


def _why_no_pod(job: Mapping[str, Any]) -> str:
    """Return why a Job has no pod, as far as it says so: its events tell of a quota for pods, for instance."""
    if _is(job, "Suspended"):
        return _said(_condition(job, "Suspended"))
    return "" if (job.get("status") or {}).get("active") else NO_POD


def _progress(pod: Mapping[str, Any]) -> tuple[EngineState, str, float | None]:
    """Return how far a pod is, why it goes no further, and since when it has its node."""
    status, scheduled = pod.get("status") or {}, _condition(pod, "PodScheduled")
    since = _moment(status.get("startTime")) or _moment(scheduled.get("lastTransitionTime"))
    if status.get("phase") != "Pending":
        begins = [begin for each in status.get("containerStatuses") or () for begin in _begins(each)]
        return EngineState.STARTED, "", min(begins, default=since)
    waits = [
        waiting
        for kind in ("initContainerStatuses", "containerStatuses")
        for each in status.get(kind) or ()
        if (waiting := (each.get("state") or {}).get("waiting"))
    ]
    for waiting in waits:
        if waiting.get("reason") and waiting["reason"] not in IN_LINE:
            return EngineState.HELD, _said(waiting, of=pod["metadata"]["name"]), since
    if _is(pod, "PodScheduled"):
        return EngineState.STARTED, next(map(_said, waits), ""), since
    return EngineState.QUEUED, _said(scheduled), None


def _condition(found: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    conditions = (found.get("status") or {}).get("conditions") or ()
    return next((each for each in conditions if each["type"] == kind), {})


def _is(found: Mapping[str, Any], kind: str) -> bool:
    return bool(_condition(found, kind).get("status") == "True")


def _said(found: Mapping[str, Any], *, of: str = "") -> str:
    """Return reason and message, but no message on the one pod ``of``: others wait for the same reason."""
    reason, message = found.get("reason") or "", found.get("message") or ""
    if of and of in message:
        return reason
    # the scheduler tells last that ending other pods would not help
    message = message.partition(" preemption: ")[0].removesuffix(" no new claims to deallocate,")
    return f"{reason}: {message}".strip(": ")


def _begins(container: Mapping[str, Any]) -> Iterator[float]:
    state = container.get("state") or {}
    for each in ("running", "terminated"):
        if (began := _moment((state.get(each) or {}).get("startedAt"))) is not None:
            yield began


def _moment(told: str | None) -> float | None:
    """Return a time of the API, RFC 3339 in UTC, as seconds since the epoch."""
    return dt.datetime.fromisoformat(told).timestamp() if told else None
