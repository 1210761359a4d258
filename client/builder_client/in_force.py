"""What is in force where a command says nothing itself, and where each value comes from."""

import json
import os
from collections.abc import Iterator

import click

from builder.endpoint import TLS, variable

from . import config, options


def lines(context: click.Context) -> Iterator[str]:
    """Return a line of TOML for each setting. Raises InvalidSettings."""
    file = str(config.path())
    (address, of_server), where = options.chosen(context)
    yield _line("remote", address, where)
    given = options.given_tls(context)
    for name in TLS:
        if name in given:
            yield _line(name, given[name], "command line")
        elif value := os.environ.get(variable(name)):
            yield _line(name, value, f"environment, {variable(name)}")
        else:
            yield _line(name, of_server.get(name), file if of_server.get(name) else "default")
    says = config.said()
    if os.environ.get("NO_COLOR"):
        yield _line("color", "auto", "environment, NO_COLOR")
    else:
        yield _line("color", config.settings().color, file if "color" in says else "default")
    yield _line("yes", config.settings().yes, file if "yes" in says else "default")


def _line(name: str, value: object, where: str) -> str:
    if value is None:
        return f"#{name} =  # {where}"
    return f"{name} = {json.dumps(value, ensure_ascii=False)}  # {where}"
