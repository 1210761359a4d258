"""The jobs of the farm: their names tell what they say and leave, so that every console and artifact can be checked."""

from attrs import frozen

from builder.model import Artifact, ScriptJob

_SCRIPT = """#!/bin/sh
i=0
while [ $i -lt {lines} ]; do
    i=$((i + 1))
    echo "{name} $i"
    [ $((i % {every})) -ne 0 ] || sleep 0.05
done
mkdir -p bin
echo "made by {name}" > bin/out
head -c 100000 /dev/zero > zeros
"""


@frozen(kw_only=True)
class Work:
    """A job that says so many lines, and sleeps 50 ms after every some of them."""

    name: str
    platform: str
    lines: int
    every: int

    @property
    def job(self) -> ScriptJob:
        """The job."""
        script = _SCRIPT.format(name=self.name, lines=self.lines, every=self.every)
        return ScriptJob(name=self.name, platform=self.platform, script=script.encode())

    def says(self) -> list[bytes]:
        """Return all that it says."""
        return [f"{self.name} {number}".encode() for number in range(1, self.lines + 1)]

    @property
    def leaves(self) -> dict[str, bytes]:
        """Return the files that it leaves."""
        return {"bin/out": f"made by {self.name}\n".encode(), "zeros": bytes(100_000)}

    @property
    def artifacts(self) -> tuple[Artifact, ...]:
        """Return the same as a worker sends them."""
        return tuple(Artifact(path=path, content=content) for path, content in self.leaves.items())


def own(lines: list[bytes]) -> list[bytes]:
    """Leave out what the worker itself has said."""
    return [line for line in lines if not line.startswith(b"builder-worker: ")]
