"""Three servers behind the real HAProxy: the commands and files of deploy/ha as they stand there, on one machine."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO

import pytest
from attrs import define, field
from clusters import Cluster
from farm import DEADLINE, environment, free_port
from operators import ROOT, need

PROGRAMS = Path(sys.executable).parent
PAGES = ROOT / "deploy" / "ha"

NAMES = {"builder": "127.0.0.10", "b1": "127.0.0.11", "b2": "127.0.0.12", "b3": "127.0.0.13"}
"""Machines, each with an address of its own on this one."""

SERVERS = ("b1", "b2", "b3")


@define(eq=False)
class Machines:
    """What the page says is done here: each machine is a directory, the ports are others."""

    root: Path
    cluster: Cluster
    port: int = field(factory=free_port)
    metrics: int = field(factory=free_port)
    running: ExitStack = field(factory=ExitStack)
    programs: "dict[str, subprocess.Popen[bytes]]" = field(factory=dict)

    def here(self, text: str) -> str:
        """Return a text of the page as it is here."""
        text = text.replace("1234", str(self.port)).replace("9645", str(self.metrics))
        for name, address in NAMES.items():
            text = text.replace(f"{name}.example.org", address)
        text = re.sub(r"postgresql://\S+?\"", f'{self.cluster.url("builder")}"', text)
        for directory in ("/etc/builder", "/var/lib/builder", "/etc/haproxy"):
            text = text.replace(directory, f"{self.root}{directory}")
        return text

    @property
    def log(self) -> str:
        return "".join(f"--- {path.name}\n{path.read_text('utf-8', 'replace')}" for path in self.root.glob("*.log"))

    def _sh(self, script: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            ["sh", "-ec", script],
            cwd=self.root, env=self.env, capture_output=True, text=True, timeout=DEADLINE, check=False,
        )  # fmt: skip

    def run(self, script: str) -> str:
        """Run commands that end, and return what they print."""
        done = self._sh(script)
        assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}\n{self.log}"
        return done.stdout

    def run_until(self, expected: str, script: str) -> None:
        """Run commands again and again until they succeed, and print what is expected."""
        end = time.monotonic() + DEADLINE
        while (done := self._sh(script)).returncode or expected not in done.stdout:
            assert time.monotonic() < end, f"{script}\n{done.stdout}{done.stderr}\n{self.log}"
            time.sleep(0.1)

    def start(self, name: str, script: str) -> IO[bytes]:
        """Run one that serves, and return its standard output."""
        *before, last = script.strip().splitlines()
        script = "\n".join((*before, f"exec {last}"))
        log = self.running.enter_context((self.root / f"{name}.log").open("wb"))
        program = subprocess.Popen(
            ["sh", "-ec", script], cwd=self.root, env=self.env, stdout=subprocess.PIPE, stderr=log
        )
        self.running.callback(program.wait)
        self.running.callback(program.kill)
        self.programs[name] = program
        assert program.stdout
        self.running.callback(program.stdout.close)
        return program.stdout

    @property
    def env(self) -> dict[str, str]:
        path = f"{PROGRAMS}{os.pathsep}{self.cluster.programs}{os.pathsep}/usr/sbin{os.pathsep}{os.environ['PATH']}"
        return environment(PATH=path, PGHOST=str(self.cluster.directory), PGUSER="builder")


def block(name: str) -> str:
    """Return the commands that the page marks with a name."""
    page = (PAGES / "README.md").read_text("utf-8")
    (found,) = re.findall(rf"<!-- test: {name} -->\n```\n(.*?)```", page, re.DOTALL)
    return str(found).replace("\\\n", "")


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[Machines]:
    need("haproxy", ["haproxy"])
    cluster = Cluster.make()
    found = Machines(tmp_path, cluster)
    with found.running:
        yield found
    cluster.kill()


@pytest.mark.long
def test_the_commands_of_the_page(machines: Machines) -> None:
    root = machines.root
    for directory in ("etc/builder", "etc/haproxy"):
        (root / directory).mkdir(parents=True)
    machines.run(block("database"))
    machines.run(machines.here(block("certificates")))
    (root / "etc/builder/database-password").touch(mode=0o600)
    for name in SERVERS:
        options = (PAGES / "server.toml").read_text("utf-8").replace("b1", name)
        options = machines.here(options).replace("/var/lib/builder", f"/var/lib/{name}")
        (root / f"var/lib/{name}").mkdir(parents=True)
        (root / f"etc/builder/{name}.toml").write_text(options, "utf-8")
        said = machines.start(name, machines.here(block("server")).replace("server.toml", f"{name}.toml"))
        assert f"{NAMES[name]}:{machines.port}" in said.readline().decode(), machines.log
    (root / "etc/haproxy/haproxy.cfg").write_text(machines.here((PAGES / "haproxy.cfg").read_text("utf-8")), "utf-8")
    machines.run(machines.here("haproxy -c -f /etc/haproxy/haproxy.cfg"))
    machines.start("haproxy", machines.here(block("balancer")))
    work = machines.here(block("worker")).rstrip()
    machines.start("worker", f"{work} --sandbox none --work-dir {root}/work\n")
    machines.run_until("waiting for a job", f"cat {root}/worker.log")
    *settings, write, schedule, observe, history, servers = machines.here(block("client")).strip().splitlines()
    set_up = "\n".join(settings)
    machines.run(f"{set_up}\n{write}\n{schedule}")
    machines.run_until("succeeded", f"{set_up}\n{observe} || true\n{history}")
    shown = machines.run(f"{set_up}\n{servers}")
    assert all(name in shown for name in SERVERS), shown
    drain, resume = block("upgrade").strip().splitlines()
    assert "The server b1 is drained" in machines.run(f"{set_up}\n{drain}")
    machines.run(f"{set_up}\n{resume}")
    # one that is gone is missed by nobody
    machines.programs["b1"].kill()
    for name in ("builder", *SERVERS[1:]):
        machines.run_until("succeeded", f"{set_up}\nbuilder-client --remote {NAMES[name]}:{machines.port} history")
    machines.run_until("", f"{set_up}\nbuilder-client execute greet")
    machines.run_until("2", f"{set_up}\n{history} | grep -c succeeded")
