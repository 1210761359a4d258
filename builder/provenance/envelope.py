"""Envelopes: DSSE, as JSON. What is in them is signed as bytes, so that nobody has to agree on a form of JSON."""

import base64
import binascii
import json
from collections.abc import Collection, Iterable
from typing import Any, Self

from attrs import frozen

from builder.provenance import MAX_ENVELOPE, InvalidProvenance
from builder.provenance.keys import PublicKey, SigningKey

PAYLOAD_TYPE = "application/vnd.in-toto+json"

MAX_PAYLOAD = 4 * 1024 * 1024
"""Bytes of a statement: that of a build with 20 000 artifacts has them."""

MAX_SIGNATURES = 16
_MAX_TEXT = 1024


@frozen(kw_only=True)
class Signature:
    """A signature, and the id of the key that is said to have made it."""

    key_id: str
    signature: bytes


@frozen(kw_only=True)
class Envelope:
    """What is signed, and its signatures."""

    payload: bytes
    payload_type: str
    signatures: tuple[Signature, ...]

    @classmethod
    def sign(cls, payload: bytes, keys: Iterable[SigningKey]) -> Self:
        """Return a statement signed with keys, all of which have their private half."""
        from cryptography.hazmat.primitives.serialization import load_pem_private_key
        from securesystemslib import dsse
        from securesystemslib.signer import CryptoSigner

        envelope = dsse.Envelope(payload, PAYLOAD_TYPE, {})
        for key in keys:
            assert key.private_pem, "it can sign"
            envelope.sign(CryptoSigner(load_pem_private_key(key.private_pem.encode(), None)))
        signatures = tuple(
            Signature(key_id=each.keyid, signature=bytes.fromhex(each.signature))
            for each in envelope.signatures.values()
        )
        return cls(payload=payload, payload_type=PAYLOAD_TYPE, signatures=signatures)

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Read an envelope that anybody may have made. Raises InvalidProvenance."""
        if len(data) > MAX_ENVELOPE:
            raise InvalidProvenance(f"an envelope of more than {MAX_ENVELOPE} bytes")
        found = read_json(data, "envelope")
        match found:
            case {
                "payload": str() as payload,
                "payloadType": str() as payload_type,
                "signatures": list() as signatures,
            }:
                pass
            case _:
                raise InvalidProvenance("it is no envelope: payload, payloadType and signatures belong in it")
        if len(payload_type) > _MAX_TEXT or not 0 < len(signatures) <= MAX_SIGNATURES:
            raise InvalidProvenance(f"an envelope has 1 to {MAX_SIGNATURES} signatures, and a short type")
        envelope = cls(
            payload=_base64(payload),
            payload_type=payload_type,
            signatures=tuple(_signature(each) for each in signatures),
        )
        if len({each.key_id for each in envelope.signatures}) < len(signatures):
            raise InvalidProvenance("an envelope with two signatures of one key")
        return envelope

    def encode(self) -> bytes:
        """Return it as JSON."""
        signatures = [
            {"keyid": each.key_id, "sig": base64.b64encode(each.signature).decode("ascii")} for each in self.signatures
        ]
        value = {
            "payloadType": self.payload_type,
            "payload": base64.b64encode(self.payload).decode("ascii"),
            "signatures": signatures,
        }
        return json.dumps(value).encode("ascii") + b"\n"

    def signers(self, keys: Collection[PublicKey]) -> tuple[list[PublicKey], list[PublicKey]]:
        """Return the keys that have signed it, and those that are said to have, and have not."""
        from securesystemslib import dsse, exceptions
        from securesystemslib import signer as library

        signatures = {each.key_id: library.Signature(each.key_id, each.signature.hex()) for each in self.signatures}
        envelope = dsse.Envelope(self.payload, self.payload_type, signatures)
        have, have_not = [], []
        for key in keys:
            if key.id not in signatures:
                continue
            try:
                envelope.verify([_loaded(key)], 1)
            except exceptions.VerificationError:
                have_not.append(key)
            else:
                have.append(key)
        return have, have_not


def _loaded(key: PublicKey) -> Any:
    from cryptography.hazmat.primitives.serialization import load_pem_public_key
    from securesystemslib.signer import SSlibKey

    return SSlibKey.from_crypto(load_pem_public_key(key.pem.encode()))


def _signature(value: object) -> Signature:
    match value:
        case {"sig": str() as signature, **others} if len(signature) <= _MAX_TEXT:
            key_id = others.get("keyid", "")
            if isinstance(key_id, str) and len(key_id) <= _MAX_TEXT:
                return Signature(key_id=key_id, signature=_base64(signature))
    raise InvalidProvenance("a signature is none: sig and keyid belong in it")


def _base64(text: str) -> bytes:
    """Read either of the alphabets that DSSE knows."""
    try:
        return base64.b64decode(text.translate(_TO_STANDARD), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidProvenance("what should be base64 is none") from error


_TO_STANDARD = str.maketrans("-_", "+/")


def read_json(data: bytes, what: str) -> object:
    """Read JSON that anybody may have made: of two keys that are alike, others might read the other, and half a character,
    which JSON can write, is no text. Raises InvalidProvenance.
    """
    try:
        found: object = json.loads(data.decode("utf-8"), object_pairs_hook=_object, parse_constant=_refuse)
        json.dumps(found, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError) as error:
        raise InvalidProvenance(f"it is no {what}, or a damaged one: no JSON") from error
    return found


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("two keys are alike")
    return found


def _refuse(name: str) -> object:
    raise ValueError(name)
