"""What tests of the engine ``kubernetes`` share: what is asked for, and answers that API servers have given.

The answers are in data/kubernetes, one in a file: the request, the status, headers where they were told, and the body, with the
release of the API server (or what its fields tell of that), the month, and where it was found. Each was found alone: they are no
conversation of one cluster. Names, images, commands and addresses are replaced; ``changed`` says what else is not as it was.
"""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import httpx
import kubernetes_validate
from attrs import define, field, frozen

from builder.needs import of_text
from builder_provision.engines import Launch
from builder_provision.engines.kubernetes import MARK, Kubernetes
from builder_provision.fleet import Ticket

ANSWERS = Path(__file__).with_name("data") / "kubernetes"

VERSIONS = ("1.30", "1.34")
"""Releases of the schemas: the oldest one that is meant to do, and a newer one."""

JOBS, PODS = "/apis/batch/v1/namespaces/builds/jobs", "/api/v1/namespaces/builds/pods"

POD: dict[str, Any] = {
    "metadata": {"labels": {"team": "builds"}},
    "spec": {
        "nodeSelector": {"pool": "builders"},
        "containers": [
            {
                "name": "worker",
                "image": "registry.example.org/builder-worker:1",
                "args": ["ignored"],
                "resources": {"requests": {"cpu": "1"}, "limits": {"ephemeral-storage": "20Gi"}},
            },
            {"name": "cache", "image": "registry.example.org/cache:1"},
        ],
    },
}
TICKET = Ticket(
    name="farm-0123456789",
    platform="debian-12",
    needs=of_text("cores>=4 kvm memory>=16G"),
    asked_at=1_795_194_796.5,
    time_limit=21_600.0,
)
LAUNCH = Launch(
    ticket=TICKET,
    words=("builder-worker", "work", "--name=farm-0123456789", "--", "debian-12"),
    features=("feature.node.kubernetes.io/kvm=true", "fast"),
    pod=POD,
)


def valid(said: dict[str, Any], versions: Iterable[str] = VERSIONS) -> dict[str, Any]:
    """Return an object of the API that its schemas allow, if it is one of a group that has some."""
    for release in versions if said["kind"] not in ("DeleteOptions", "Status") else ():
        kubernetes_validate.validate(said, release, strict=True)
    return said


@frozen(kw_only=True)
class Answer:
    """What an API server has answered to a ``request``, its method and path."""

    request: str
    release: str
    status: int
    headers: Mapping[str, str]
    body: Any

    @classmethod
    def named(cls, name: str) -> "Answer":
        said = json.loads((ANSWERS / f"{name}.json").read_text())
        return cls(
            headers=said.get("headers", {}), **{key: said[key] for key in ("request", "release", "status", "body")}
        )

    @property
    def schemas(self) -> tuple[str, ...]:
        """The releases whose schemas hold for it: its own, if that is known."""
        found = re.search(r"\d+\.\d+", self.release)
        return (found[0],) if found else VERSIONS

    def response(self) -> httpx.Response:
        if isinstance(self.body, str):
            return httpx.Response(self.status, headers=self.headers, content=self.body.encode())
        return httpx.Response(self.status, headers=self.headers, json=self.body)


def names() -> list[str]:
    """Return what all answers are called."""
    return sorted(path.stem for path in ANSWERS.glob("*.json"))


def kept(name: str) -> dict[str, Any]:
    """Return a Job or a pod as it stands in a list, with what this engine asks an API server to keep of each of its own."""
    found: dict[str, Any] = {
        key: value for key, value in Answer.named(name).body.items() if key not in ("kind", "apiVersion")
    }
    sent = answered_by().manifest(LAUNCH)["metadata"]
    own = {"labels": {MARK: "farm"}}
    if name.startswith("job-"):
        own = {"labels": sent["labels"], "annotations": sent["annotations"]}
    elif not {"job-name"} & found["metadata"]["labels"].keys():  # no Job made it
        own["labels"] |= {"batch.kubernetes.io/job-name": TICKET.name, "job-name": TICKET.name}
    for key, values in own.items():
        found["metadata"].setdefault(key, {}).update(values)
    return found


def listed(kind: str, items: list[dict[str, Any]], *, go_on: str = "") -> Answer:
    """Return a list; what is around the objects is as 1.30 says it of pods."""
    path, version = (JOBS, "batch/v1") if kind == "Job" else (PODS, "v1")
    metadata = {"resourceVersion": "2546450"} | ({"continue": go_on, "remainingItemCount": 1} if go_on else {})
    body = {"kind": f"{kind}List", "apiVersion": version, "metadata": metadata, "items": items}
    return Answer(request=f"GET {path}", release="1.30", status=200, headers={}, body=body)


@define
class Conversation:
    """An API server that gives these answers, one after the other, to the requests that they were given to."""

    answers: list[Answer]
    requests: list[httpx.Request] = field(factory=list)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answers.pop(0)
        assert f"{request.method} {request.url.path}" == answer.request
        if request.content:
            valid(json.loads(request.content))
        return answer.response()


def answered_by(*answers: Answer) -> Kubernetes:
    """Return an engine whose API server gives these answers, and no other."""
    return Kubernetes(
        label="farm",
        url="https://api.example.org:6443",
        namespace="builds",
        transport=httpx.MockTransport(Conversation(list(answers))),
    )
