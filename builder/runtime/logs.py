"""What a program that serves says: one line an event, on standard error, as text or JSON.

An event may have parts of its own, for those who read JSON: ``log.info("…", extra={"fields": {"status": 200}})``.
"""

import datetime as dt
import json
import logging
import sys

LEVELS = (logging.ERROR, logging.WARNING, logging.INFO, logging.DEBUG)


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        moment = dt.datetime.fromtimestamp(record.created, dt.UTC)
        return f"{moment:%Y-%m-%dT%H:%M:%S}.{int(record.msecs):03}Z {record.levelname.lower()} {_message(self, record)}"


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        moment = dt.datetime.fromtimestamp(record.created, dt.UTC)
        return json.dumps(
            {
                "time": moment.isoformat(timespec="milliseconds"),
                "level": record.levelname.lower(),
                "logger": record.name,
                "message": _message(self, record),
                **getattr(record, "fields", {}),
            }
        )


def _message(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    message = record.getMessage()
    return f"{message}\n{formatter.formatException(record.exc_info)}" if record.exc_info else message


def set_up(*, verbosity: int, form: str) -> None:
    """Send the log to standard error. ``verbosity`` is 0 for information, one less or more per -q or -v."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if form == "json" else _Text())
    level = LEVELS[max(0, min(len(LEVELS) - 1, 2 + verbosity))]
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for chatty in ("httpx", "httpcore", "alembic", "sqlalchemy"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
