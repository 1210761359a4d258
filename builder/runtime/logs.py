"""What a program that serves says: one line an event, on standard error, as text or JSON, or as a record of the journal.

A message says what happens, and fields say to what: job, uuid, platform, peer, holder. They come from the task that
something happens in. ``logger.info("begins")`` within ``about(uuid=…, job=…)`` reads "build … of …: begins" as text; JSON and the
journal have the fields beside the message. An event may have more of its own:
``log.info("…", extra={"fields": {"status": 200}})``.
"""

import datetime as dt
import json
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any

from builder.model import printable
from builder.runtime import journal
from builder.runtime.journal import Journal

LEVELS = (logging.ERROR, logging.WARNING, logging.INFO, logging.DEBUG)

_PRIORITIES = {logging.CRITICAL: 2, logging.ERROR: 3, logging.WARNING: 4, logging.INFO: 6, logging.DEBUG: 7}
"""What syslog(3) calls the levels."""

_NONE: Mapping[str, object] = MappingProxyType({})
_fields: ContextVar[Mapping[str, object]] = ContextVar("fields", default=_NONE)


def fields() -> Mapping[str, object]:
    """Return what the records of this task say besides."""
    return _fields.get()


def note(**more: object) -> None:
    """Have the records of this task, and of those that it starts from now on, say something more. None takes a field away."""
    _fields.set({name: value for name, value in {**_fields.get(), **more}.items() if value is not None})


@contextmanager
def about(**more: object) -> Iterator[None]:
    """Have records say something more in a block, and in the tasks that it starts. None takes a field away."""
    token = _fields.set(_fields.get())
    try:
        note(**more)
        yield
    finally:
        _fields.reset(token)


_make_plain_record = logging.getLogRecordFactory()


def _make_record(*arguments: Any, **named: Any) -> logging.LogRecord:
    record = _make_plain_record(*arguments, **named)
    record.about = _fields.get()  # here, since whoever reads it may be elsewhere
    return record


logging.setLogRecordFactory(_make_record)


def _shown(value: object) -> object:
    return value if isinstance(value, int | float) else printable(str(value))


def fields_of(record: logging.LogRecord) -> dict[str, object]:
    """Return what a record says besides its message, fit to be shown."""
    found = {**getattr(record, "about", {}), **getattr(record, "fields", {})}
    return {name: _shown(value) for name, value in found.items()}


def _subject(about: Mapping[str, object]) -> str:
    """Return what a line is about: a build, or else who is connected."""
    match about:
        case {"uuid": uuid}:
            parts = [f"build {uuid}", *(f"{word} {about[name]}" for name, word in _PARTS.items() if name in about)]
            return " ".join(parts) + ": "
        case {"peer": peer, "holder": holder}:
            return f"{peer} ({holder}): "
        case {"peer": peer}:
            return f"{peer}: "
        case _:
            return ""


_PARTS = {"job": "of", "platform": "on"}


class Text(logging.Formatter):
    """What people read. What an exception says in several lines is indented, so that none passes for an event.

    ``stamp`` begins each line: None is time and level.
    """

    def __init__(self, stamp: str | None = None) -> None:
        super().__init__()
        self._stamp = stamp

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        return (_stamp(record) if self._stamp is None else self._stamp) + _message(self, record)


def _stamp(record: logging.LogRecord) -> str:
    moment = dt.datetime.fromtimestamp(record.created, dt.UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{int(record.msecs):03}Z {record.levelname.lower()} "


def _message(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    about = {name: _shown(value) for name, value in getattr(record, "about", {}).items()}
    return _subject(about) + _said(formatter, record)


def _said(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    lines = [record.getMessage()]
    if record.exc_info:
        lines += [f"  {line}" for line in formatter.formatException(record.exc_info).splitlines()]
    return "\n".join(map(printable, lines))


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        moment = dt.datetime.fromtimestamp(record.created, dt.UTC)
        return json.dumps(
            {
                "time": moment.isoformat(timespec="milliseconds"),
                "level": record.levelname.lower(),
                "logger": record.name,
                "message": _said(self, record),
                **fields_of(record),
            }
        )


class _ToJournal(logging.Handler):
    """Hands records to the journal, and to another handler what that does not take."""

    def __init__(self, name: str, to: Journal, otherwise: logging.Handler) -> None:
        super().__init__()
        self._name, self._to, self._otherwise = name, to, otherwise
        self._formatter = logging.Formatter()

    def emit(self, record: logging.LogRecord) -> None:
        """Hand over a record."""
        try:
            self._to.send(
                {
                    "MESSAGE": _message(self._formatter, record),
                    "PRIORITY": str(_PRIORITIES.get(record.levelno, 5)),
                    "SYSLOG_IDENTIFIER": self._name,
                    "BUILDER_LOGGER": record.name,
                    **{f"BUILDER_{name.upper()}": str(value) for name, value in fields_of(record).items()},
                }
            )
        except OSError:
            self._otherwise.handle(record)

    def close(self) -> None:
        """Hand over nothing more."""
        self._to.close()
        super().close()


def set_up(name: str, *, verbosity: int, form: str, stamp: str | None = None) -> None:
    """Send the log of a program to standard error, or where that is systemd's journal, there as records with fields.

    ``verbosity`` is 0 for information, one less or more per -q or -v; ``form`` is "text" or "json", ``stamp`` what begins a
    line of text, None for time and level.
    """
    handler: logging.Handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if form == "json" else Text(stamp))
    if form == "text" and journal.is_standard_error(os.environ):
        handler = _ToJournal(name, Journal(journal.SOCKET), handler)
    level = LEVELS[max(0, min(len(LEVELS) - 1, 2 + verbosity))]
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for chatty in ("httpx", "httpcore", "alembic", "sqlalchemy"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
