"""Values into DER, held against the encoder of asn1tools."""

import tracemalloc
from uuid import UUID

from hypothesis import given
from strategies import messages

from builder import codec, syntax
from builder.messages import JobSchedule, Message
from builder.model import ScriptJob
from builder.syntax import syntax_of


@given(messages)
def test_messages_are_encoded_as_asn1tools_encodes_them(message: Message) -> None:
    kind = type(message)
    found = syntax_of(kind)
    coder = syntax._decoder(kind.__name__, found, kind.tag)
    assert codec.encode(message) == coder.encode(kind.__name__, found.to_asn1(message))


def test_a_large_script_is_copied_once() -> None:
    size = 4 * 2**20
    message = JobSchedule(uuid=UUID(int=1), job=ScriptJob(name="a", platform="p", script=bytes(size)))
    codec.encode(message)
    tracemalloc.start()
    try:
        encoded = codec.encode(message)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size < len(encoded) < peak < size + 2**16
