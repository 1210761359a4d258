"""Envelopes and keys that anybody may have made: what is none is refused, and nothing else comes of it."""

import base64
import json
from typing import Any

import pytest
from attrs import evolve
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from fuzz.properties import keys, provenance
from fuzz.seeds import FACTS, KEY, _statement
from hypothesis import given
from hypothesis import strategies as st

from builder.model import Instant
from builder.provenance import InvalidProvenance, times
from builder.provenance.envelope import MAX_SIGNATURES, PAYLOAD_TYPE, Envelope
from builder.provenance.keys import InvalidKey, PublicKey, read, read_public
from builder.provenance.statement import Statement, Subjects, encode

texts = st.text(max_size=20) | st.sampled_from(
    ["dirHash", "sha256", ".", "0" * 64, "path_base64", "/w==", "\ud800", "\udcff"]
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=20,
)
PLACES = [
    ("subject",), ("subject", 0), ("subject", 0, "digest"), ("subject", 1, "name"), ("subject", 2, "annotations"),
    ("predicate",), ("predicate", "runDetails"), ("predicate", "runDetails", "metadata"), ("predicateType",),
    ("predicate", "runDetails", "metadata", "invocationId"), ("predicate", "runDetails", "metadata", "finishedOn"),
    ("predicate", "buildDefinition", "externalParameters", "script"),
]  # fmt: skip


def envelope(payload: bytes) -> bytes:
    return Envelope.sign(payload, [KEY]).encode()


@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    provenance(data)
    keys(data)


@given(values)
def test_any_json(value: object) -> None:
    provenance(json.dumps(value).encode())
    provenance(json.dumps({"payload": value, "payloadType": value, "signatures": value}).encode())
    provenance(json.dumps({"payload": "", "payloadType": "x", "signatures": [value]}).encode())


@given(st.sampled_from(PLACES), values)
def test_anything_in_place_of_a_part_of_a_statement(place: tuple[Any, ...], value: object) -> None:
    statement = json.loads(_statement())
    holder = statement
    for key in place[:-1]:
        holder = holder[key]
    holder[place[-1]] = value
    text = json.dumps(statement).encode()
    provenance(json.dumps({"payload": base64.b64encode(text).decode(), "payloadType": PAYLOAD_TYPE,
                           "signatures": [{"keyid": "x", "sig": ""}]}).encode())  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        lambda found: found["signatures"].clear(),
        lambda found: found["signatures"].extend(found["signatures"] * MAX_SIGNATURES),
        lambda found: found["signatures"].append(found["signatures"][0]),
        lambda found: found["signatures"][0].update(sig="*"),
        lambda found: found["signatures"][0].update(sig="A" * 2000),
        lambda found: found["signatures"][0].update(keyid=7),
        lambda found: found.update(payload="=" + found["payload"]),
        lambda found: found.update(payload=7),
        lambda found: found.pop("payloadType"),
        lambda found: found.update(payloadType="x" * 2000),
    ],
)
def test_an_envelope_that_is_none(change: Any) -> None:
    found = json.loads(envelope(_statement()))
    change(found)
    with pytest.raises(InvalidProvenance):
        Envelope.decode(json.dumps(found).encode())


def test_half_a_character_in_an_envelope_or_a_statement() -> None:
    half = "\ud800"
    found = json.loads(envelope(_statement()))
    found["payloadType"] = half
    with pytest.raises(InvalidProvenance, match="no JSON"):
        Envelope.decode(json.dumps(found).encode())
    statement = json.loads(_statement())
    statement["subject"].append({"name": half, "digest": {"sha256": "0" * 64}})
    with pytest.raises(InvalidProvenance, match="no JSON"):
        Statement.decode(Envelope.sign(json.dumps(statement).encode(), [KEY]))


def test_whatever_a_worker_tells_is_text() -> None:
    told = {"a\udcff": "b\udcff"}
    facts = evolve(FACTS, told=told, worker=told, versions=told)
    statement = Statement.decode(Envelope.sign(encode(facts, Subjects()), [KEY]))
    shown = {"a\ufffd": "b\ufffd"}
    assert statement.predicate["buildDefinition"]["internalParameters"]["worker"] == shown
    assert statement.predicate["runDetails"]["metadata"]["builder_worker"] == shown
    assert statement.predicate["runDetails"]["builder"]["version"] == shown


def test_a_key_of_json_that_stands_there_twice() -> None:
    data = envelope(_statement())
    with pytest.raises(InvalidProvenance, match="no JSON"):
        Envelope.decode(data.replace(b'{"payloadType"', b'{"payloadType": "x", "payloadType"'))


def test_what_others_add_and_the_other_alphabet_of_base64() -> None:
    found = json.loads(envelope(b'{"?>": "' + b"?>" * 9 + b'"}'))
    assert "+" in found["payload"] or "/" in found["payload"]
    found["payload"] = found["payload"].replace("+", "-").replace("/", "_")
    found["more"] = found["signatures"][0]["more"] = 1
    assert Envelope.decode(json.dumps(found).encode()).signers([KEY.public]) == ([KEY.public], [])


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("urn:builder:job:v1", "urn:other"),
        ("in-toto.io/Statement/v1", "in-toto.io/Statement/v0.1"),
        ("slsa.dev/provenance/v1", "slsa.dev/provenance/v0.2"),
        ('"name":"a/b"', '"name":"."'),
        ('"dirHash":"', '"dirHash":"0'),
        ('"name":"."', '"name":"a/b"'),
        ('"path_base64":"/w=="', '"path_base64":"YQ=="'),
    ],
)
def test_a_statement_that_is_none(before: str, after: str) -> None:
    text = _statement().decode()
    assert before in text
    with pytest.raises(InvalidProvenance):
        Statement.decode(Envelope.sign(text.replace(before, after, 1).encode(), [KEY]))


# --- keys ----------------------------------------------------------------------------------------------------------


def test_what_others_write_around_keys() -> None:
    lines = "# valid until I say so\r\nValid-Until:   2030-01-01T00:00:00.5Z  \r\nOther: 1\n"
    (key,) = read_public(f"{lines}{KEY.public.pem}")
    assert (key.id, key.valid_from, key.valid_until) == (KEY.public.id, None, Instant(1_893_456_000_500))


OTHER = (
    ec.generate_private_key(ec.SECP256R1())
    .public_key()
    .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    .decode()
)
"""A key, and none of Ed25519."""

TIME = "2026-11-26T21:00:00Z"


@pytest.mark.parametrize(
    "text",
    [
        "",
        OTHER,
        KEY.public.pem.replace("MCow", "MCox"),
        KEY.public.pem[:-10],
        KEY.public.pem + KEY.public.pem[:-10],
        f"Valid-From: yesterday\n{KEY.public.pem}",
        f"Valid-Until: 2026-13-01T00:00:00Z\n{KEY.public.pem}",
        f"Valid-Until: {TIME} # it was stolen\n{KEY.public.pem}",
        f"Valid-Until {TIME}\n{KEY.public.pem}",
        f"Valid-Until:\n{TIME}\n{KEY.public.pem}",
        f"valid-until: {TIME}\n{KEY.public.pem}",
        f" Valid-From: {TIME}\n{KEY.public.pem}",
        f"Valid-From: {TIME}\nValid-From: {TIME}\n{KEY.public.pem}",
        f"{KEY.public.pem}Valid-Until: {TIME}\n",
    ],
)
def test_what_is_no_key(text: str) -> None:
    with pytest.raises(InvalidKey):
        read(text)


def test_a_private_key_is_shown_nowhere() -> None:
    assert KEY.private_pem
    secret = KEY.private_pem.splitlines()[1]
    assert secret in str(KEY)  # which is the file
    assert secret not in repr(KEY)
    assert isinstance(KEY.public, PublicKey)
    assert secret not in repr(KEY.public) + str(KEY.public)


@pytest.mark.parametrize(
    "text", ["", "2026", "2026-11-26T21:00:00", "2026-11-26T21:00:00+00:00", "0000-01-01T00:00:00Z"]
)
def test_what_is_no_time(text: str) -> None:
    assert times.read(text) is None
