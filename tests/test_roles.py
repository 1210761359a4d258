"""The roles that certificates give."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.model import Instant, text
from builder.roles import HolderRole, Identity, InvalidCertificate, worker_uri


def certificate(*uris: str, subject: tuple[Any, ...] = ((("commonName", "alice"),),)) -> dict[str, Any]:
    """Return what ssl tells of a certificate."""
    return {
        "subject": subject,
        "issuer": ((("commonName", "farm"),),),
        "serialNumber": "1F",
        "notBefore": "Jan  1 00:00:00 2026 GMT",
        "notAfter": "Feb  3 04:05:06 2027 GMT",
        "subjectAltName": tuple(("URI", uri) for uri in uris),
    }


def test_certificate_says_who_holds_it() -> None:
    identity = Identity.of(certificate("urn:builder:operator"))
    assert identity.name == "alice"
    assert identity.serial == 0x1F
    assert identity.expires.isoformat() == "2027-02-03T04:05:06Z"
    assert isinstance(identity.expires, Instant)


@pytest.mark.parametrize(
    ("uris", "roles"),
    [
        ((), set()),
        (("urn:builder:operator",), {HolderRole.OPERATOR, HolderRole.OBSERVER, HolderRole.PROVISIONER}),
        (("urn:builder:provisioner",), {HolderRole.PROVISIONER, HolderRole.OBSERVER}),
        (("urn:builder:observer",), {HolderRole.OBSERVER}),
        (("urn:builder:worker",), {HolderRole.WORKER}),
        (("urn:builder:worker:debian-12",), {HolderRole.WORKER}),
        (("urn:builder:worker", "urn:builder:observer"), {HolderRole.WORKER, HolderRole.OBSERVER}),
        (("urn:builder:king", "urn:builder:", "urn:builder:operators", "https://builder/operator"), set()),
    ],
)
def test_what_a_holder_may_be(uris: tuple[str, ...], roles: set[HolderRole]) -> None:
    identity = Identity.of(certificate(*uris))
    assert {role for role in HolderRole if identity.may_be(role)} == roles


@pytest.mark.parametrize(
    ("uris", "may", "may_not"),
    [
        (("urn:builder:worker",), "anything", None),
        (("urn:builder:worker", "urn:builder:worker:a"), "b", None),
        (("urn:builder:worker:a", "urn:builder:worker:b%2Fc"), "b/c", "c"),
        (("urn:builder:worker:a:b",), "a:b", "a"),
        (("urn:builder:operator",), None, "a"),
        ((), None, "a"),
    ],
)
def test_platforms_of_a_worker(uris: tuple[str, ...], may: str | None, may_not: str | None) -> None:
    identity = Identity.of(certificate(*uris))
    assert may is None or identity.may_work_for(may)
    assert may_not is None or not identity.may_work_for(may_not)


@given(st.binary(min_size=1))
def test_every_name_of_a_platform_can_be_written(name: bytes) -> None:
    platform = text(name)
    uri = worker_uri(platform)
    assert uri.isascii()
    assert Identity.of(certificate(uri)).platforms == frozenset({platform})


def test_certificate_that_names_nobody() -> None:
    with pytest.raises(InvalidCertificate, match="no common name"):
        Identity.of(certificate("urn:builder:operator", subject=((("organizationName", "farm"),),)))


def test_certificate_without_names() -> None:
    """Most certificates of others have no URI, and some no alternative name at all."""
    known = certificate()
    del known["subjectAltName"]
    assert not Identity.of(known).roles
