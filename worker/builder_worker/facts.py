"""What a worker tells of itself when it asks for a job, and of how it runs one: facts of its program, its machine, and what its
operator chose.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from attrs import asdict

from builder import __version__
from builder.errors import InvalidOptions
from builder.extension.working import MAX_FACT_VALUE, Fact
from builder.model import ScriptJob
from builder.needs import LABEL, PRESSURE, check_label
from builder_worker.allowances import Machine
from builder_worker.build import Setup, limits_of
from builder_worker.sandbox import Backend, Limits, roots
from builder_worker.sandbox.backends.none import NoSandbox
from builder_worker.sandbox.options import Options

KVM = Path("/dev/kvm")

MAX_LABELS = 32
"""Most labels of a worker."""


def lasting(backend: Backend, limits: Limits, *, slots: int, labels: Sequence[str] = ()) -> tuple[Fact, ...]:
    """Return what stays for as long as the worker runs. Memory and cores are what one job of it may use."""
    machine = Machine.here()
    return _facts(
        {
            "version": __version__,
            "arch": os.uname().machine,
            "cores": max(1, int(limits.cpus or machine.cpus)),
            "memory": limits.memory or machine.memory,
            "kvm": "yes" if _has_kvm(backend) else "no",
            "sandbox": backend.name,
            **_of_tree(backend.options),
            "slots": slots,
            **{LABEL + name: "" for name in labels},
        }
    )


def passing(pressure: str | None = None) -> tuple[Fact, ...]:
    """Return what is true now: the load of the machine, as the mean of a minute, and why it takes no job, if that matters."""
    told = {"load": f"{os.getloadavg()[0]:.2f}"}
    return _facts(told if pressure is None else told | {PRESSURE: pressure})


def parse_labels(names: Sequence[str]) -> tuple[str, ...]:
    """Return the labels of a worker, each once. Raises InvalidOptions."""
    labels = tuple(dict.fromkeys(map(check_label, names)))
    if len(labels) > MAX_LABELS:
        raise InvalidOptions(f"a worker has {MAX_LABELS} labels at most")
    return labels


def _has_kvm(backend: Backend) -> bool:
    """Return whether jobs can use the machine's KVM: it is shown to them, or nothing is hidden from them."""
    if backend.name == NoSandbox.name:
        return os.access(KVM, os.R_OK | os.W_OK)
    return KVM in backend.options.devices and KVM.exists()


def of_job(job: ScriptJob, setup: Setup) -> dict[str, str]:
    """Return how a job is run: its sandbox, the limits that hold for it, and the root tree that it sees, if that has a label."""
    options = setup.backend.options
    found = {
        "version": __version__,
        "arch": os.uname().machine,
        "sandbox": setup.backend.name,
        **_of_tree(options),
        "image": options.image,
        **{f"limit.{name}": _number(limit) for name, limit in asdict(limits_of(job, setup)).items()},
    }
    return {name: str(value)[:MAX_FACT_VALUE] for name, value in found.items() if value is not None}


def _of_tree(options: Options) -> dict[str, str]:
    """Return what is told of the root tree that jobs see, if that has a label."""
    label = roots.read(options.root) if options.root is not None else None
    found = {"root": label.sha256, "snapshot": label.snapshot} if label else {}
    return {name: value for name, value in found.items() if value is not None}


def _number(value: float | None) -> str | None:
    return None if value is None else f"{value:.15g}"


def _facts(found: Mapping[str, object]) -> tuple[Fact, ...]:
    return tuple(Fact(name=name, value=str(value)[:MAX_FACT_VALUE]) for name, value in found.items())
