"""Addresses, made in one place."""

from urllib.parse import quote

from builder_web.store.records import Build


def job(name: str) -> str:
    """Return the address of a job."""
    return f"/job/{quote(name, safe='')}"


def build(of: Build) -> str:
    """Return the address of a build."""
    return f"{job(of.job)}/build/{of.uuid}"


def artifact(of: Build, path: str) -> str:
    """Return the address of an artifact of a build."""
    return f"{build(of)}/f/{quote(path, safe='/')}"
