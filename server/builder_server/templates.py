"""Orb-build jobs become scripts through the template of a platform. Templates may come and go at any time."""

import os
import re
import stat
from pathlib import Path

from builder.messages import MAX_SCRIPT
from builder.model import OrbBuildJob, ScriptJob, raw

PREFIX = "orb-build.template."

_PLACE = re.compile(rb"%%(OPAM_PACKAGE|PLATFORM)%%")


def template_path(config_dir: Path, platform: str) -> Path:
    """Return where the template of a platform lies; the name must have been checked."""
    return config_dir / f"{PREFIX}{platform}"


def read_template(config_dir: Path, platform: str) -> bytes | None:
    """Return a platform's template, or None if there is none that can be used.

    Raises OSError where there is one that can't be read.
    """
    try:
        # without blocking: somebody may have put a FIFO there
        descriptor = os.open(template_path(config_dir, platform), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        with open(descriptor, "rb", closefd=False) as file:
            template = file.read(MAX_SCRIPT + 1)
    finally:
        os.close(descriptor)
    return template if len(template) <= MAX_SCRIPT else None


def expand(template: bytes, job: OrbBuildJob, platform: str) -> ScriptJob:
    """Return the script that builds the package on the platform."""
    values = {b"OPAM_PACKAGE": raw(job.opam_package), b"PLATFORM": raw(platform)}
    # in one pass: what is filled in is no template
    script = _PLACE.sub(lambda place: values[place[1]], template)
    return ScriptJob(name=job.name, platform=platform, script=script)
