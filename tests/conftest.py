"""What all tests share."""

import gc
import os
import signal
import sys
from collections.abc import AsyncIterator, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import databases
import pytest
from clocks import Clock
from farm import LocalServer, run_server
from hypothesis import settings
from scripted import OURS, ScriptedPeer, connect

from builder.runtime import logs

if TYPE_CHECKING:
    from builder_server.store import Store

# Whoever starts the tests may ignore these, as nohup does, and programs would inherit that.
for number, action in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, action)

# Whoever works with PostgreSQL may have set these; tests have clusters of their own, and name them.
for variable in [name for name in os.environ if name.startswith("PG")]:
    del os.environ[variable]

# Trees and directories that tests make are for jobs, who are other users. What an odd umask does to programs, tests say that
# set one.
os.umask(0o022)

# The same examples each time and no clock: a test says the same thing on every machine, however busy it is.
settings.register_profile("default", derandomize=True, deadline=None, max_examples=30)
# For a person who looks for trouble: pytest --hypothesis-profile=thorough tests/test_codec.py
settings.register_profile("thorough", max_examples=20_000, deadline=None)
settings.load_profile("default")


def pytest_collection_finish() -> None:
    """Have no later collection of garbage go through all tests that were found: they are there to the end."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    if (clusters := sys.modules.get("clusters")) is not None:
        clusters.end()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if (marker := metafunc.definition.get_closest_marker("databases")) is not None:
        only = marker.kwargs.get("only") or ("sqlite" if metafunc.definition.get_closest_marker("sqlite") else None)
        metafunc.parametrize("kind", [only] if only else databases.KINDS, indirect=True)


@pytest.fixture(autouse=True)
def kind(request: pytest.FixtureRequest) -> Iterator[str]:
    """The kind of database that the test is run with."""
    databases.kind = getattr(request, "param", databases.KIND)
    yield databases.kind
    marker = request.node.get_closest_marker("databases")
    databases.forget(is_as_new=marker is not None and not marker.kwargs)
    databases.kind = databases.KIND


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """Have ``caplog.text`` be what people read."""
    plugin = config.pluginmanager.get_plugin("logging-plugin")
    assert plugin, "it is pytest's own"
    plugin.caplog_handler.setFormatter(logs.Text())


@pytest.fixture
def clock() -> Clock:
    """The clock of ``server``, which a test may set."""
    return Clock()


@pytest.fixture
async def server(tmp_path: Path, clock: Clock) -> AsyncIterator[LocalServer]:
    """A server in this process; test files that need another one have their own."""
    async with run_server(tmp_path, now=clock) as running_server:
        yield running_server


@pytest.fixture
async def client(server: LocalServer) -> AsyncIterator[ScriptedPeer]:
    """A client of ``server`` that speaks our own protocol."""
    async with connect(server, OURS) as peer:
        yield peer


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator["Store"]:
    """A server's store without the server."""
    from stores import opened  # with the database library, for which the tests of others need not wait

    async with opened(tmp_path) as found:
        yield found


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Have what was logged be text that goes from one process to another: messages may quote any bytes."""
    report = yield
    report.sections = [(title, said.encode("utf-8", "backslashreplace").decode()) for title, said in report.sections]
    return report
