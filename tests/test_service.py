"""service: what the programs tell the manager that started them, and when."""

import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from attrs import frozen
from farm import DEADLINE, running_server, start, start_server
from scripted import connect

from builder.runtime import service


@frozen
class Manager:
    """A service manager, as far as programs see it. ``address`` is for NOTIFY_SOCKET."""

    address: str
    socket: socket.socket

    def told(self) -> bytes:
        """Wait for the next datagram."""
        return self.socket.recv(1000)

    @property
    def env(self) -> dict[str, str]:
        return {"NOTIFY_SOCKET": self.address}


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    name = str(tmp_path / "notify")
    if request.param == "abstract" and sys.platform != "linux":
        pytest.skip("abstract names are Linux's")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(name if request.param == "path" else "\0" + name)
        receiver.settimeout(DEADLINE)
        yield Manager(name if request.param == "path" else "@" + name, receiver)


def test_the_manager_is_told(manager: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", manager.address)
    service.notify("READY=1")
    assert manager.told() == b"READY=1"


@pytest.mark.parametrize("address", ["", "relative", "vsock:2:1234", "@"])
def test_without_a_manager_nothing_happens(
    address: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    service.notify("READY=1")
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    service.notify("READY=1")
    assert len(caplog.records) == (address == "@")


@pytest.mark.parametrize("name", ["gone", "x" * 1000])
def test_a_manager_that_has_gone_is_no_reason_to_end(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / name))
    service.notify("READY=1")
    (record,) = caplog.records
    assert record.getMessage().startswith("the service manager can't be told READY=1: ")


def test_a_manager_that_does_not_read_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    monkeypatch.setattr(service, "_TIMEOUT", 0.01)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(os.environ["NOTIFY_SOCKET"])
        while not caplog.records:
            service.notify("READY=1")
    assert "timed out" in caplog.text


@pytest.mark.parametrize("manager", ["path"], indirect=True)
async def test_a_server_is_ready_once_it_listens(tmp_path: Path, manager: Manager) -> None:
    async with start_server(tmp_path, env=manager.env) as server:
        assert manager.told() == b"READY=1"
        async with connect(server):
            server.process.send_signal(signal.SIGTERM)
            assert manager.told() == b"STOPPING=1"
        assert await server.wait_async() == 0
    manager.socket.setblocking(False)
    with pytest.raises(BlockingIOError):
        manager.told()


@pytest.mark.parametrize("manager", ["path"], indirect=True)
def test_a_server_that_can_not_listen_is_never_ready(tmp_path: Path, manager: Manager) -> None:
    with running_server(tmp_path, env=manager.env) as server:
        assert manager.told() == b"READY=1"
        other = tmp_path / "other"
        other.mkdir()
        with (
            pytest.raises(AssertionError, match="in use"),
            running_server(other, f"--port={server.port}", env=manager.env),
        ):
            pass
    manager.socket.setblocking(False)
    with pytest.raises(BlockingIOError):
        manager.told()


@pytest.mark.parametrize("manager", ["path"], indirect=True)
def test_a_worker_is_ready_before_it_connects(tmp_path: Path, manager: Manager) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(DEADLINE)
        worker = start(
            "builder_worker",
            "p1",
            f"--remote=127.0.0.1:{server.getsockname()[1]}",
            "--sandbox=none",
            f"--work-dir={tmp_path / 'jobs'}",
            log_path=tmp_path / "worker.log",
            env=manager.env,
        )
        try:
            connection, _ = server.accept()
            manager.socket.setblocking(False)  # it has come before
            assert manager.told() == b"READY=1"
            manager.socket.settimeout(DEADLINE)
            worker.process.send_signal(signal.SIGTERM)
            assert manager.told() == b"STOPPING=1"
            assert worker.wait() == 128 + signal.SIGTERM
            connection.close()
        finally:
            worker.kill()
            assert worker.process.stdout
            worker.process.stdout.close()
