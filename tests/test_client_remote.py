import contextlib
import socket
import threading
from collections.abc import Callable
from uuid import UUID

import pytest
from client_harness import DEADLINE, EMPTY, Answer, Server, assert_one_line, run_client

from builder.endpoint import Servers
from builder.messages import CLIENT_VERSION, Info, Message, Observe, Output, Success
from builder_client.errors import Unreachable
from builder_client.remote import Remote

U = UUID(int=1)


def remote(server: Server, reply_timeout: float = DEADLINE) -> Remote:
    return Remote(servers=Servers.of(f"127.0.0.1:{server.port}", {}), reply_timeout=reply_timeout)


def test_a_server_that_owes_a_reply_is_not_waited_for_without_end() -> None:
    def answer(_command: Message) -> Answer:
        server.stopped.wait(DEADLINE)
        return []

    with Server(answer) as server, pytest.raises(Unreachable, match=r"did not answer within 0\.05 s$"):
        remote(server, reply_timeout=0.05).info()


def test_a_server_that_says_no_hello_is_not_waited_for_without_end() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        silent = Remote(servers=Servers.of(f"127.0.0.1:{listener.getsockname()[1]}", {}), reply_timeout=0.05)
        with pytest.raises(Unreachable, match=r"did not answer within 0\.05 s$"):
            silent.info()


@pytest.mark.parametrize("command", [(), ("history",), ("info",), ("log", "323b"), ("watch", "--json")])
def test_what_closes_before_a_hello_is_no_classic_server(command: tuple[str, ...]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        closing = threading.Thread(target=close_all, args=(listener,))
        closing.start()
        done = run_client("-r", f"127.0.0.1:{listener.getsockname()[1]}", *command)
        listener.shutdown(socket.SHUT_RDWR)
        closing.join(DEADLINE)
    assert done.returncode == 5
    assert_one_line(done.stderr)
    assert b"closed the connection at once: if it speaks TLS, give --tls-ca" in done.stderr


def close_all(listener: socket.socket) -> None:
    """Close each connection once it has said something, as a server that stops or is full does."""
    with contextlib.suppress(OSError):
        while True:
            sock, _ = listener.accept()
            with sock:
                sock.recv(64)


def test_an_observation_may_be_silent_for_longer_than_a_reply() -> None:
    with Server(lambda _: quiet_for_a_while(waits)) as server:
        waits: list[threading.Event] = [threading.Event()]
        outputs = list(remote(server, reply_timeout=0.05).observe(U, on_wait=later(waits[0])))
    assert outputs == [Output(uuid=U, line=b"exited 0", timestamp=1)]


def quiet_for_a_while(waits: list[threading.Event]) -> Answer:
    assert waits[0].wait(DEADLINE)
    yield Output(uuid=U, line=b"exited 0", timestamp=1)
    yield Success()


def later(event: threading.Event) -> Callable[[], None]:
    """Return what sets the event some time after the client began to wait: longer than its timeout for replies."""

    def set_later() -> None:
        threading.Timer(0.15, event.set).start()

    return set_later


def test_output_is_handed_on_before_every_wait() -> None:
    waits = 0

    def count() -> None:
        nonlocal waits
        waits += 1

    def answer(command: Message) -> Answer:
        assert command == Observe(uuid=U)
        return [Output(uuid=U, line=b"exited 0", timestamp=1), Success()]

    with Server(answer) as server:
        list(remote(server).observe(U, on_wait=count))
    assert waits >= 1


def test_one_connection_for_each_question() -> None:
    with Server(lambda _: [EMPTY, Success()]) as server:
        one = remote(server)
        assert one.info() == one.info() == EMPTY
    assert server.seen == [Info(), Info()]
    assert CLIENT_VERSION == 13
    assert str(Remote(servers=Servers.of("[::1]:5", {}))) == "[::1]:5"
