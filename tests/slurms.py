"""A Slurm of the tests' own: munged, slurmctld and slurmd of Debian, in a directory of theirs, with ports and a key of theirs."""

import contextlib
import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from attrs import define, field
from farm import free_port
from operators import need

DEADLINE = 60.0
"""Seconds for anything it does."""

CPUS = 8
"""So many it believes to have, whatever the machine has."""

_CONFIGURATION = """\
ClusterName=test
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={directory}/munge/socket
CredType=cred/munge
StateSaveLocation={directory}/state
SlurmdSpoolDir={directory}/spool
SlurmctldPidFile={directory}/slurmctld.pid
SlurmdPidFile={directory}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
MpiDefault=none
ReturnToService=2
SlurmdParameters=config_overrides
SchedulerParameters=sched_min_interval=0,sched_interval=1,batch_sched_delay=0,bf_interval=1
KillWait=2
MinJobAge=10
JobAcctGatherType=jobacct_gather/none
NodeName=localhost NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=64000 Features=big State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


@define(eq=False)
class Cluster:
    """A Slurm that runs."""

    directory: Path
    processes: dict[str, subprocess.Popen[bytes]] = field(factory=dict)

    @property
    def env(self) -> dict[str, str]:
        """What makes Slurm's programs speak with it."""
        return {"SLURM_CONF": str(self.directory / "slurm.conf")}

    def start(self, name: str, *words: str) -> None:
        """Start one of its programs."""
        with (self.directory / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", name, *words],
                env=os.environ | self.env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.directory,
            )  # fmt: skip

    def start_controller(self) -> None:
        self.start("slurmctld", "-D")

    def stop(self, name: str) -> None:
        process = self.processes.pop(name)
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)

    def run(self, *words: str) -> str:
        """Run one of Slurm's programs, and return what it says."""
        done = subprocess.run(
            words,
            env=os.environ | self.env,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )
        return done.stdout if done.returncode == 0 else ""

    def jobs(self) -> list[str]:
        """Return names and states of all jobs that are not over."""
        return self.run("squeue", "--noheader", "--format=%j %T %r").splitlines()

    def wait_ready(self) -> None:
        end = time.monotonic() + DEADLINE
        while "idle" not in self.run("sinfo", "--noheader", "--format=%T"):
            assert time.monotonic() < end, self.log
            time.sleep(0.05)

    @property
    def log(self) -> str:
        return "".join(path.read_text("utf-8", "replace") for path in sorted(self.directory.glob("*.log")))


@contextmanager
def running_slurm() -> Iterator[Cluster]:
    """Run a Slurm until the block ends, or skip the test where there is none."""
    need("slurm", ["munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "sinfo", "setpriv"])
    cluster = Cluster(Path(tempfile.mkdtemp(prefix="slurm-")))
    directory = cluster.directory
    try:
        directory.chmod(0o755)
        for name in ("munge", "state", "spool"):
            (directory / name).mkdir(mode=0o755)
        key = directory / "munge" / "key"
        key.touch(mode=0o600)
        key.write_bytes(secrets.token_bytes(1024))
        (directory / "slurm.conf").write_text(
            _CONFIGURATION.format(
                directory=directory,
                user=pwd.getpwuid(os.geteuid()).pw_name,
                controller_port=free_port(),
                node_port=free_port(),
                cpus=CPUS,
            )
        )
        own = {name: f"{directory}/munge/{name}" for name in ("socket", "pid", "log", "seed")}
        cluster.start(
            "munged", "--foreground", "--force", "--num-threads=1", f"--key-file={key}", f"--socket={own['socket']}",
            f"--pid-file={own['pid']}", f"--log-file={own['log']}", f"--seed-file={own['seed']}",
        )  # fmt: skip
        end = time.monotonic() + DEADLINE
        while not Path(own["socket"]).exists():
            assert time.monotonic() < end, cluster.log
            time.sleep(0.01)
        cluster.start_controller()
        cluster.start("slurmd", "-D", "-N", "localhost")
        cluster.wait_ready()
        yield cluster
    except BaseException as error:
        error.add_note(f"--- logs of Slurm ---\n{cluster.log[-20_000:]}")
        raise
    finally:
        with contextlib.suppress(subprocess.TimeoutExpired):
            cluster.run("scancel", "--me")
        for name in list(cluster.processes):
            cluster.stop(name)
        shutil.rmtree(directory, ignore_errors=True)
