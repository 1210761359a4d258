"""The file of settings, ``client.toml``: servers by name, and what options are where nobody gives them.

Its keys are the fields of ``ClientSettings``, and of ``Server`` below each ``[servers.NAME]``.
"""

import functools
import os
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from attrs import AttrsInstance, Factory, field, fields, frozen

from builder.address import parse_remotes
from builder.endpoint import TLS
from builder.errors import BuilderError
from builder.model import printable

from . import words

COLORS = ("auto", "always", "never")


class InvalidSettings(BuilderError):
    """The file of settings can't be used, or has no such server; the text names the file, and says what to write."""

    exit_code: ClassVar[int] = 2


class _WrongKey(ValueError):
    """What is wrong with a key, by its path in the file."""


def _key(write: str, meaning: str, *, check: Callable[[Any], bool], default: Any) -> Any:
    """Return the field of a key: what it may be set to, as it is written there, and what that means."""
    return field(default=default, metadata={"write": write, "meaning": meaning, "check": check})


def _is_address(value: object) -> bool:
    try:
        return isinstance(value, str) and bool(parse_remotes(value))
    except ValueError:
        return False


def _tls_key(name: str) -> Any:
    metavar, meaning = TLS[name]
    return _key(
        f'"{metavar}"',
        f"As the option --{name}: {meaning}",
        check=lambda value: value is None or isinstance(value, str),
        default=None,
    )


@frozen(kw_only=True)
class Server:
    """A server that has a name."""

    remote: str = _key(
        '"HOST:PORT"',
        "Its address; [IPv6] in brackets, or unix:PATH for a socket; several with commas between them.",
        check=_is_address,
        default=None,
    )
    tls_ca: str | None = _tls_key("tls-ca")
    tls_cert: str | None = _tls_key("tls-cert")
    tls_key: str | None = _tls_key("tls-key")
    tls_name: str | None = _tls_key("tls-name")


@frozen(kw_only=True)
class ClientSettings:
    """What the file says."""

    default: str | None = _key(
        '"NAME", one of the servers',
        "The server that is meant where neither an option nor the environment names one.",
        check=lambda value: value is None or isinstance(value, str),
        default=None,
    )
    color: str = _key(
        " or ".join(f'"{color}"' for color in COLORS),
        "As the option --color; NO_COLOR in the environment wins.",
        check=lambda value: value in COLORS,
        default="auto",
    )
    yes: bool = _key(
        "true or false",
        "As the option --yes: commands that destroy something do not ask.",
        check=lambda value: isinstance(value, bool),
        default=False,
    )
    servers: Mapping[str, Server] = Factory(dict)


def path() -> Path:
    """Return where the file is, or would be."""
    base = Path(os.environ.get("XDG_CONFIG_HOME", ""))
    if not base.is_absolute():  # such a value counts as none, says the specification of base directories
        base = Path(os.path.expanduser("~/.config"))  # noqa: PTH111  a person without a home is no error
    return base / "builder" / "client.toml"


@functools.cache
def settings() -> ClientSettings:
    """Return what the file says; what it does not say, or all if it is not there, is as by default."""
    text = _text()
    try:
        return parse(text) if text else ClientSettings()
    except ValueError as error:
        raise InvalidSettings(f"{path()}: {error}") from error


def said() -> Collection[str]:
    """Return the keys that are in the file, once ``settings`` has taken it. Raises InvalidSettings."""
    import tomllib

    return tomllib.loads(_text())


def _text() -> str:
    where = path()
    try:
        return where.read_text("utf-8")
    except (FileNotFoundError, NotADirectoryError):  # as below XDG_CONFIG_HOME=/dev/null
        return ""
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InvalidSettings(f"can't read {where}: {reason}; mend it, or move it away") from error


def parse(text: str) -> ClientSettings:
    """Return the settings in a text. Raises ValueError, which names the key, or the place, and what to write."""
    import tomllib  # 10 ms for those who have a file

    values = tomllib.loads(text)
    servers = values.pop("servers", {})
    if not isinstance(servers, dict):
        raise _WrongKey('servers: write [servers.NAME] and, below it, remote = "HOST:PORT"')
    named = {name: Server(**_checked(Server, table, f"servers.{name}.")) for name, table in servers.items()}
    found = ClientSettings(**_checked(ClientSettings, values, ""), servers=named)
    if found.default is not None and found.default not in named:
        raise _WrongKey(f"default: {_no_server(found.default, named)}")
    return found


Entry = tuple[str, Mapping[str, str | None]]
"""The address of a server, and what is said of its TLS by the names of the options."""


def server(name: str) -> Entry:
    """Return what the file says of the server of that name. Raises InvalidSettings."""
    servers = settings().servers
    if name not in servers:
        raise InvalidSettings(f"{path()}: {_no_server(name, servers)}")
    found = servers[name]
    files = {option: _beside(getattr(found, option.replace("-", "_"))) for option in TLS}
    return found.remote, files | {"tls-name": found.tls_name}


def _beside(file: str | None) -> str | None:
    """Return the path of a file that is named in the file of settings: beside that, unless it says where."""
    return None if file is None else str(path().parent / os.path.expanduser(file))  # noqa: PTH111  as above


def _checked(kind: type[AttrsInstance], values: object, where: str) -> dict[str, Any]:
    """Return a table whose keys are fields of that class, with values for all of them."""
    if not isinstance(values, dict):
        raise _WrongKey(f"{printable(where.rstrip('.'))}: write it as a table, [{printable(where.rstrip('.'))}]")
    keys = {written(key.name): key for key in fields(kind) if key.metadata}
    for name in values:
        if name not in keys:
            raise _WrongKey(f"{printable(where + name)}: there is no such key{_hint(name, keys)}")
    found = {name: values.get(name, key.default) for name, key in keys.items()}
    for name, value in found.items():
        if not keys[name].metadata["check"](value):
            raise _WrongKey(f"{printable(where)}{name}: write {name} = {keys[name].metadata['write']}")
    return {keys[name].name: value for name, value in found.items()}


def written(name: str) -> str:
    """Return how the key of a field is written in the file."""
    return name.replace("_", "-")


def _no_server(name: str, known: Iterable[str]) -> str:
    table = f"[servers.{printable(name)}]"
    hint = _hint(name, known) or f'; write {table} and, below it, remote = "HOST:PORT"'
    return f"there is no {table}{hint}"


def _hint(name: str, known: Iterable[str]) -> str:
    """Return which of the known names may have been meant; nothing where there are none."""
    near = words.near(name, known)
    if near is not None:
        return f"; did you mean {printable(near)}?"
    names = ", ".join(map(printable, sorted(known)))
    return f"; there are {names}" if names else ""
