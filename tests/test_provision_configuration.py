"""The file that says which workers there may be: what it says, what is wrong with it, and the examples."""

import json
import re
from pathlib import Path

import forked
import kubernetes_validate
import pytest
import yaml
from attrs import fields
from farm import DEADLINE, environment
from operators import ROOT

from builder.needs import of_text
from builder_provision.configuration import EngineSettings, Fleet, PlatformSettings, read, written
from builder_provision.engines import Launch
from builder_provision.engines.kubernetes import Kubernetes
from builder_provision.errors import InvalidFleet
from builder_provision.fleet import Ticket

DEPLOY = ROOT / "deploy"
PLATFORM = '[platforms.p]\nengine = "slurm"\n'


def said(tmp_path: Path, text: str) -> Fleet:
    path = tmp_path / "provision.toml"
    path.write_text(text)
    return read(path)


def test_what_is_not_said_is_modest(tmp_path: Path) -> None:
    fleet = said(tmp_path, "[engines.slurm]\n" + PLATFORM)
    terms = fleet.platforms["p"].terms
    assert (fleet.label, fleet.engines["slurm"].kind) == ("builder", "slurm")
    assert (terms.least, terms.most, terms.aim, terms.budget) == (0, 1, 0.0, None)


def test_all_that_can_be_said(tmp_path: Path) -> None:
    (tmp_path / "pod.json").write_text('{"spec": {"containers": [{"name": "w"}]}}')
    fleet = said(
        tmp_path,
        """
        label = "farm-1"
        [engines.cluster]
        kind = "kubernetes"
        url = "https://api:6443"
        namespace = "builds"
        ca = "ca.pem"
        token-file = "/token"
        [engines.command]
        ask = ["a", "b"]
        list = ["l"]
        remove = ["r"]
        [platforms.p]
        engine = "cluster"
        pod = "pod.json"
        least = 1
        most = 8
        aim = "2m"
        cool-down = "90s"
        patience = "10m"
        time-limit = "1h"
        hours-a-day = 1.5
        has = ["sandbox=none", "memory>=4096M"]
        features = { kvm = "kvm", "arch=arm64" = "arm" }
        most-memory = "8G"
        most-cores = "4"
        command = ["/opt/worker"]
        worker = ["--quiet"]
        constraint = "deb"
        """,
    )
    platform = fleet.platforms["p"]
    terms = platform.terms
    assert (terms.least, terms.most, terms.aim, terms.cool_down, terms.patience) == (1, 8, 120.0, 90.0, 600.0)
    assert (terms.time_limit, terms.budget) == (3600.0, 5400.0)
    assert terms.has == (*of_text("sandbox=none"), *of_text("memory>=4G"))
    assert terms.features == {"kvm": "kvm", "arch=arm64": "arm"}
    assert terms.most_of == {"memory": 8 * 1024**3, "cores": 4}
    assert fleet.pods == {"p": {"spec": {"containers": [{"name": "w"}]}}}
    assert (fleet.engines["cluster"].ca, fleet.engines["cluster"].token_file) == (str(tmp_path / "ca.pem"), "/token")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "there is no platform: write a table [platforms.NAME]"),
        ("x = 1\n[engines.slurm]\n" + PLATFORM, "unknown key 'x'; there are label, engines and platforms"),
        (
            "label = 'A b'\n[engines.slurm]\n" + PLATFORM,
            "label: write up to 40 letters, digits and dashes, such as farm",
        ),
        ("engines = 1\n" + PLATFORM, "engines: write tables [engines.NAME]"),
        ("[engines.x]\n" + PLATFORM, "engines.x: there is no key kind"),
        ("[engines.x]\nkind = 'pbs'\n", "engines.x.kind: write one of slurm, kubernetes, command"),
        ("[engines.command]\n" + PLATFORM, "engines.command: a command needs ask, list and remove"),
        ("[engines.slurm]\ncert = 'c'\n" + PLATFORM, "engines.slurm: cert and key belong together"),
        ("[engines.slurm]\nurls = 'c'\n" + PLATFORM, "engines.slurm: unknown key 'urls'; there are kind, url, "),
        (PLATFORM, "platforms.p.engine: there is no [engines.slurm]"),
        ("[platforms.p]\nmost = 1\n", "platforms.p: there is no key engine"),
        ("[engines.slurm]\n" + PLATFORM + "least = 2", "platforms.p.least: there may be 1 at most"),
        ("[engines.slurm]\n" + PLATFORM + "most = true", "platforms.p.most: write a number from 0 to 100000"),
        ("[engines.slurm]\n" + PLATFORM + "hours-a-day = '1'", "platforms.p.hours-a-day: write a number of hours"),
        ("[engines.slurm]\n" + PLATFORM + "aim = 5", "platforms.p.aim: write text in quotes"),
        ("[engines.slurm]\n" + PLATFORM + "aim = 'soon'", "platforms.p.aim: 'soon' is not a duration such as"),
        ("[engines.slurm]\n" + PLATFORM + "has = 'kvm'", "platforms.p.has: write a list of texts"),
        ("[engines.slurm]\n" + PLATFORM + "has = ['memory']", "platforms.p.has: memory: write memory>=SIZE"),
        ("[engines.slurm]\n" + PLATFORM + "features = ['kvm']", "platforms.p.features: write a table, such as"),
        ("[engines.slurm]\n" + PLATFORM + "command = []", "platforms.p.command: write a program and its arguments"),
        (
            "[engines.kubernetes]\n[platforms.p]\nengine = 'kubernetes'",
            "platforms.p.pod: kubernetes needs the template",
        ),
        (
            "[engines.kubernetes]\n[platforms.p]\nengine = 'kubernetes'\npod = 'none'",
            "none is no template of a pod, with spec.containers: No such file or directory",
        ),
        ("[engines.slurm", "can't read"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(InvalidFleet) as caught:
        said(tmp_path, text)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["[]", '{"spec": {"containers": []}}', '{"spec": {"containers": ["w"]}}', "{", "\xff"])
def test_what_is_no_pod(tmp_path: Path, text: str) -> None:
    (tmp_path / "pod.json").write_text(text, "latin-1")
    with pytest.raises(InvalidFleet, match=r"platforms\.p\.pod: "):
        said(tmp_path, "[engines.kubernetes]\n[platforms.p]\nengine = 'kubernetes'\npod = 'pod.json'")


# --- the examples --------------------------------------------------------------------------------------------------


def test_the_example_shows_every_key(tmp_path: Path) -> None:
    (tmp_path / "worker-pod.json").write_text((DEPLOY / "kubernetes/worker-pod.json").read_text())
    text = (ROOT / "docs/examples/provision.toml").read_text()
    said(tmp_path, text)
    shown = re.sub(r"^#(?=\[|[a-z-]+ = )", "", text, flags=re.MULTILINE)
    fleet = said(tmp_path, shown)
    assert set(fleet.engines) == {"slurm", "cluster", "cloud"}
    for kind in (Fleet, EngineSettings, PlatformSettings):
        for key in fields(kind):
            if key.metadata:
                assert re.search(rf"^{written(key.name)} = ", shown, re.MULTILINE), key.name


def test_slurm_is_deployed_with_a_file_that_can_be_read() -> None:
    fleet = read(DEPLOY / "slurm/provision.toml")
    assert not fleet.platforms["debian-12"].terms.beyond(of_text("kvm memory>=100G sandbox=bubblewrap"))


def test_the_workers_of_slurm_understand_their_options() -> None:
    options = ("--name=w", "--wait=5m", "--label=big", f"--config={DEPLOY}/slurm/worker.toml", "--print-config")
    done = forked.run("builder_worker", "work", *options, "--", "debian-12", env=environment(), timeout=DEADLINE)
    assert done.returncode == 0, done.stderr
    assert b'remote = "builder.example.org:1234"' in done.stdout
    assert b'wait = "5m"' in done.stdout


def _manifests() -> list[object]:
    found: list[object] = []
    for path in sorted((DEPLOY / "kubernetes").glob("*.yaml")):
        found += yaml.safe_load_all(path.read_text())
    return found


@pytest.mark.parametrize("release", ["1.30", "1.34"])
def test_kubernetes_is_deployed_with_manifests_that_are_valid(release: str) -> None:
    kinds = []
    for manifest in _manifests():
        assert isinstance(manifest, dict)
        kubernetes_validate.validate(manifest, release, strict=True)
        assert manifest["metadata"].get("namespace", "builder") == "builder"
        kinds.append(manifest["kind"])
    assert sorted(kinds) == [
        "Deployment", "Namespace", "PersistentVolumeClaim", "Role", "RoleBinding", "ServiceAccount",
    ]  # fmt: skip


@pytest.mark.parametrize("release", ["1.30", "1.34"])
def test_the_pod_of_the_example_makes_a_valid_job(release: str) -> None:
    fleet = read(DEPLOY / "kubernetes/provision.toml")
    ticket = Ticket(
        name="builder-0", platform="debian-12", needs=of_text("kvm memory>=8G"), asked_at=1.0, time_limit=3600.0
    )
    features = tuple(fleet.platforms["debian-12"].features.values())
    launch = Launch(ticket=ticket, words=("builder-worker",), features=features, pod=fleet.pods["debian-12"])
    job = Kubernetes(label="builder", url="https://api", namespace="builder").manifest(launch)
    kubernetes_validate.validate(job, release, strict=True)
    assert json.loads(json.dumps(job)) == job
