"""What a server signs about a build: a statement of in-toto with provenance of SLSA, in an envelope.

``statement`` is what is said, ``envelope`` how it is signed and held against keys, ``keys`` how these are written down, and
``directory`` the one hash that stands for all artifacts. No I/O. The libraries that sign are loaded when something is signed
or verified, and not before: that takes 55 ms.
"""

from builder.errors import BuilderError


class InvalidProvenance(BuilderError, ValueError):
    """An envelope, or the statement in it, that is not what it should be. Whoever made it meant harm, or something else."""

    exit_code = 4


class KeysUnusable(BuilderError):
    """The keys of a server can't be read or written; or none of them is valid."""

    exit_code = 9


MAX_ENVELOPE = 6 * 1024 * 1024
"""Bytes of an envelope: a statement as base64 takes a third more than its 4 MiB."""

FILE_NAME = "provenance.json"
"""The file of an envelope beside what else is kept of a build."""

PROVENANCE_HEADER = "builder-provenance"
"""The field of builder-web's answer to an upload that names where the envelope of the build is posted to."""
