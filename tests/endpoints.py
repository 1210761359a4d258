"""HTTP endpoints for uploads, with and without TLS, and what leads to them."""

import base64
import http.server
import select
import socket
import socketserver
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

from attrs import define, field
from farm import DEADLINE, Reachable, eventually
from scripted import build, do, schedule

from builder import execution
from builder.model import Artifact, Execution

SOME = (Artifact(path="a", content=b"x" * 1_000_000), Artifact(path="b/c", content=b""))
CREDENTIALS = "Basic " + base64.b64encode(b"us er:se/cret").decode("ascii")
USER = "us%20er:se%2Fcret@"


@define
class Request:
    """What an endpoint was asked."""

    path: str
    headers: dict[str, str]
    raw_headers: bytes
    body: bytes = b""

    @property
    def execution(self) -> Execution:
        return execution.decode(self.body)


@define
class Endpoint:
    """An HTTP server; what it answers may be changed, and ``go_on`` holds up its answers until it is set.

    ``first`` are the statuses of the next answers, before ``status`` is that of all; ``taken`` are the bodies that were
    answered by 2xx; those that are ``indigestible`` are answered by 500. With ``drop_after`` it closes once it has read so many bytes.
    """

    port: int
    scheme: str = "http"
    status: int = 201
    location: str = ""
    retry_after: str = ""
    provenance: str = ""
    drop_after: int | None = None
    go_on: threading.Event = field(factory=threading.Event)
    requests: list[Request] = field(factory=list)
    first: list[int] = field(factory=list)
    indigestible: tuple[bytes, ...] = ()
    taken: list[bytes] = field(factory=list)

    def url(self, user: str = USER) -> str:
        return f"{self.scheme}://{user}127.0.0.1:{self.port}/upload?token=1"


class _Listener(http.server.ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: peers that don't trust a certificate go away."""


@contextmanager
def serving(tls: ssl.SSLContext | None = None) -> Iterator[Endpoint]:
    """Run an endpoint until the block ends."""
    found: list[Endpoint] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = DEADLINE

        def setup(self) -> None:
            if tls:  # here and not where connections are accepted: no peer waits for another's handshake
                self.request.settimeout(DEADLINE)
                self.request = tls.wrap_socket(self.request, server_side=True)
            super().setup()

        def finish(self) -> None:
            super().finish()
            self.request.close()

        def do_POST(self) -> None:
            endpoint = found[0]
            request = Request(self.path, dict(self.headers.items()), self.headers.as_bytes())
            endpoint.requests.append(request)
            size = int(self.headers["Content-Length"])
            if endpoint.drop_after is not None:
                self.rfile.read(min(size, endpoint.drop_after))
                self.close_connection = True
                return
            request.body = self.rfile.read(size)
            endpoint.go_on.wait(DEADLINE)
            status = endpoint.first.pop(0) if endpoint.first else endpoint.status
            if request.body in endpoint.indigestible:
                status = 500
            if 200 <= status < 300:
                endpoint.taken.append(request.body)
            self.send_response(status)
            if endpoint.location:
                self.send_header("Location", endpoint.location)
            if endpoint.retry_after:
                self.send_header("Retry-After", endpoint.retry_after)
            if endpoint.provenance:
                self.send_header("Builder-Provenance", endpoint.provenance)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
            pass

    with _Listener(("127.0.0.1", 0), Handler) as listener:
        found.append(Endpoint(listener.server_port, "https" if tls else "http"))
        found[0].go_on.set()
        with _in_thread(listener):
            yield found[0]
            found[0].go_on.set()


@contextmanager
def socks_proxy() -> Iterator[tuple[int, list[str]]]:
    """Run a SOCKS5 proxy until the block ends; it yields its port, and where it was asked to lead to.

    The names that it is asked for are all this machine's.
    """
    asked: list[str] = []

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            peer: socket.socket = self.request
            peer.settimeout(DEADLINE)
            with peer.makefile("rwb", buffering=0) as file:
                _, methods = file.read(2)
                file.read(methods)
                file.write(b"\x05\x00")  # no authentication
                kind = file.read(4)[3]
                host = file.read(file.read(1)[0]).decode() if kind == 3 else socket.inet_ntoa(file.read(4))
                port = int.from_bytes(file.read(2))
                asked.append(f"{host}:{port}")
                file.write(b"\x05\x00\x00\x01" + bytes(6))
                with socket.create_connection(("127.0.0.1", port), DEADLINE) as target:
                    _carry(peer, target)

    class Listener(socketserver.ThreadingTCPServer):
        daemon_threads = True
        block_on_close = False

    with Listener(("127.0.0.1", 0), Handler) as listener, _in_thread(listener):
        yield listener.server_address[1], asked


def _carry(one: socket.socket, other: socket.socket) -> None:
    """Carry bytes in both directions until one side ends."""
    ways = {one: other, other: one}
    while ready := select.select(list(ways), [], [], DEADLINE)[0]:
        for source in ready:
            if not (data := source.recv(65536)):
                return
            ways[source].sendall(data)


@contextmanager
def _in_thread(listener: socketserver.BaseServer) -> Iterator[None]:
    thread = threading.Thread(target=listener.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        listener.shutdown()
        thread.join(DEADLINE)


async def one_build(server: Reachable, name: str = "a") -> UUID:
    """Let a server have a finished build with a console and artifacts, and return its uuid."""
    await do(server, schedule(name))
    return (await build(server, lines=[b"one"], artifacts=SOME))[0]


async def wait_failed(server: Reachable, uuid: UUID, attempts: int = 1) -> str:
    """Wait until an upload has failed so often, and is to be tried again; return why."""
    sql = f"select reason from upload where build = '{uuid}' and state = 'pending' and attempts = {attempts}"
    ((reason,),) = await eventually(lambda: server.query(sql), what=f"failure {attempts}")
    return str(reason)


async def wait_state(server: Reachable, uuid: UUID, state: str) -> None:
    """Wait until the upload of a build is "done", "failed", and so on."""
    sql = f"select upload from build where uuid = '{uuid}'"
    await eventually(lambda: server.query(sql) == [(state,)], what=f"upload {state}")
