"""The jail of one job: made empty, limited by rctl, removed with all of its processes.

Written after the manuals of jail(8), jls(8), pkill(1) and rctl(8) in FreeBSD 13 and 14, where it has not run yet.
"""

from collections.abc import Iterator
from pathlib import Path

from attrs import define

from builder_worker.sandbox import Limits
from builder_worker.sandbox.freebsd.clone import Run
from builder_worker.sandbox.linux import view

# Killed until nothing is left to kill: older kernels let a process escape that was just being forked. Rules stay without
# their jail, and to remove them fails where there are none.
_END = """
jid=$(jls -j "$1" jid 2>/dev/null) || exit 0
jail -R "$1"
tries=1000
while pkill -KILL -j "$jid"; do
  [ $((tries -= 1)) -gt 0 ] || { echo "processes of the jail $1 that cannot be killed" >&2; exit 1; }
  sleep 0.01
done
rctl -r "jail:$1" 2>/dev/null
exit 0
"""

# What is off is off by default, but for what /etc/sysctl.conf says of security.jail.
_PARAMETERS = (
    *("persist", "children.max=0", "enforce_statfs=2", "securelevel=3", f"host.hostname={view.HOSTNAME}"),
    *("sysvmsg=new", "sysvsem=new", "sysvshm=new"),
    *(
        f"allow.no{name}"
        for name in ("set_hostname", "raw_sockets", "chflags", "mount", "quotas", "read_msgbuf", "socket_af", "mlock")
    ),
    "allow.noreserved_ports",
)


@define(kw_only=True)
class Prison:
    """The jail of one job, from before it is made until after it is removed."""

    name: str
    run: Run

    async def create(self, root: Path, limits: Limits, *, network: bool) -> None:
        """Make it, with nothing in it. Raises SandboxError."""
        reach = "inherit" if network else "disable"
        parameters = (f"name={self.name}", f"path={root}", f"ip4={reach}", f"ip6={reach}", *_PARAMETERS)
        await self.run("jail", "-q", "-c", *parameters)
        for rule in rules(limits):
            await self.run("rctl", "-a", f"jail:{self.name}:{rule}")

    @property
    def end(self) -> tuple[str, ...]:
        """The command line that kills all that is in it and removes it, if it is there."""
        return ("/bin/sh", "-c", _END, "sh", self.name)

    async def remove(self) -> None:
        """Kill all that is in it and remove it, if it is there. Raises SandboxError."""
        await self.run(*self.end)

    async def ran_out_of_memory(self) -> bool:
        """Return whether the kernel noted that its limit of memory was hit."""
        return f'rctl: rule "jail:{self.name}:memoryuse:log='.encode() in await self.run("dmesg")


def rules(limits: Limits) -> Iterator[str]:
    """Return what rctl(8) is told of a jail."""
    if limits.memory is not None:
        yield f"memoryuse:log={limits.memory}"  # so that it can be told why the job ended
        yield f"memoryuse:sigkill={limits.memory}"  # "deny" would not deny, but write all of the job to swap
    if limits.pids is not None:
        yield f"maxproc:deny={limits.pids}"
        yield f"nthr:deny={limits.pids}"
    if limits.cpus is not None:
        yield f"pcpu:deny={max(1, round(limits.cpus * 100))}"
