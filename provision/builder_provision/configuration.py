"""The file that says which workers there may be: engines by name, and what is asked of them for each platform."""

import json
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from attrs import Factory, evolve, field, fields, frozen

from builder.errors import BuilderError
from builder.model import check_name, printable
from builder.needs import QUANTITIES, Need
from builder.quantities import parse_count, parse_duration, parse_pause, parse_size
from builder_provision.errors import InvalidFleet
from builder_provision.terms import Terms

KINDS = ("slurm", "kubernetes", "command")

_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?", re.ASCII)


class _Wrong(ValueError):
    """What is wrong with a key, which stands before it."""


def _key(write: str, meaning: str, read: Callable[[Any], Any], default: Any = None) -> Any:
    """Return the field of a key: what it may be set to, what that means, and how it is read."""
    return field(default=default, metadata={"write": write, "meaning": meaning, "read": read})


def _text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise _Wrong("write text in quotes")
    return value


def _texts(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise _Wrong('write a list of texts, such as ["--partition=builders"]')
    return tuple(value)


def _command(value: object) -> tuple[str, ...]:
    words = _texts(value)
    if not words:
        raise _Wrong('write a program and its arguments, such as ["/usr/local/bin/start", "--fast"]')
    return words


def _whole(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= 100_000:
        raise _Wrong("write a number from 0 to 100000")
    return value


def _hours(value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 10_000_000:
        raise _Wrong("write a number of hours")
    return float(value) * 3600


def _said(parse: Callable[[str], Any]) -> Callable[[Any], Any]:
    """Return how a quantity is read that is written in words."""
    return lambda value: parse(_text(value))


def _needs(value: object) -> tuple[Need, ...]:
    return tuple(map(Need.parse, _texts(value)))


def _features(value: object) -> Mapping[str, str]:
    if not isinstance(value, dict):
        raise _Wrong('write a table, such as { kvm = "kvm", "arch=arm64" = "arm" }')
    return {str(Need.parse(name)): _text(feature) for name, feature in value.items()}


def _label(value: object) -> str:
    if not _LABEL.fullmatch(_text(value)):
        raise _Wrong("write up to 40 letters, digits and dashes, such as farm")
    return _text(value)


def _kind(value: object) -> str:
    if value not in KINDS:
        raise _Wrong(f"write one of {', '.join(KINDS)}")
    return str(value)


@frozen(kw_only=True)
class EngineSettings:
    """An engine."""

    kind: str = _key(
        " or ".join(f'"{kind}"' for kind in KINDS),
        "What it is. Without this key it is what the table is called.",
        _kind,
    )
    url: str | None = _key('"URL"', "kubernetes: its API server.  [default: that of the pod's own cluster]", _text)
    namespace: str | None = _key('"NAME"', "kubernetes: where the jobs are.  [default: the pod's own]", _text)
    ca: str | None = _key('"FILE"', "kubernetes: the authority of the API server.  [default: the pod's own]", _text)
    token_file: str | None = _key(
        '"FILE"', "kubernetes: the token that is shown to it, read each time.  [default: the pod's own]", _text
    )
    cert: str | None = _key('"FILE"', "kubernetes: a certificate that is shown to it instead of a token.", _text)
    key: str | None = _key('"FILE"', "kubernetes: the key of that certificate.", _text)
    ask: tuple[str, ...] = _key('["COMMAND", "ARGUMENT"]', "command: starts a worker.", _command, ())
    list: tuple[str, ...] = _key('["COMMAND", "ARGUMENT"]', "command: lists those that are not gone.", _command, ())
    remove: tuple[str, ...] = _key('["COMMAND", "ARGUMENT"]', "command: ends one.", _command, ())


@frozen(kw_only=True)
class PlatformSettings:
    """What is asked of an engine for a platform."""

    engine: str = _key('"NAME"', "Which engine; there must be a table [engines.NAME].", _text)
    most: int = _key("NUMBER", "Workers at once, at most.  [default: 1]", _whole, 1)
    least: int = _key("NUMBER", "Workers that are there also when nothing waits.  [default: 0]", _whole, 0)
    aim: float = _key(
        '"TIME"',
        "For how long a job may wait for a worker that stands anyway, and is busy. Without such a one, another one is asked "
        'for at once.  [default: "0"]',
        _said(parse_pause),
        0.0,
    )
    cool_down: float = _key(
        '"TIME"',
        'For how long a worker stays that nothing waits for: its --wait.  [default: "5m"]',
        _said(parse_duration),
        300.0,
    )
    patience: float = _key(
        '"TIME"',
        "In which a worker that was started comes to the server, and one that the engine holds back is started; then it is "
        'removed.  [default: "15m"]',
        _said(parse_duration),
        900.0,
    )
    time_limit: float = _key(
        '"TIME"',
        "For how long a worker is asked for. It is longer where a job that waits has a longer limit of its own. "
        '[default: "6h"]',
        _said(parse_duration),
        6 * 3600.0,
    )
    hours_a_day: float | None = _key(
        "NUMBER",
        "Hours of all workers together on a day, in UTC; after that no more are asked for.  [default: any]",
        _hours,
    )
    has: tuple[Need, ...] = _key(
        '["NEED"]', 'What every worker has, as jobs need it: ["sandbox=overlay", "memory>=4G"].', _needs, ()
    )
    features: Mapping[str, str] = _key(
        '{ NEED = "FEATURE" }',
        'What the engine can be asked for, by what jobs need: { kvm = "kvm" }. For Slurm a feature of its nodes, for '
        'Kubernetes a label of its nodes with a value, "LABEL=VALUE". A need without a value is passed on as --label.',
        _features,
        Factory(dict),
    )
    most_memory: int | None = _key('"SIZE"', "Memory of one job, at most.  [default: any]", _said(parse_size))
    most_cores: int | None = _key('"NUMBER"', "Cores of one job, at most.  [default: any]", _said(parse_count))
    command: tuple[str, ...] = _key(
        '["COMMAND"]', 'What a worker is started with.  [default: ["builder-worker"]]', _command, ("builder-worker",)
    )
    worker: tuple[str, ...] = _key(
        '["OPTION"]', 'Options of builder-worker: ["--config=/etc/builder/worker.toml"].', _texts, ()
    )
    options: tuple[str, ...] = _key('["OPTION"]', "Options of sbatch, or arguments of the command ask.", _texts, ())
    constraint: str | None = _key('"FEATURE"', "A feature that all workers of the platform need.", _text)
    pod: str | None = _key(
        '"FILE"', "kubernetes: the template of its pods, as JSON; the first container is the worker.", _text
    )

    @property
    def terms(self) -> Terms:
        """What may be planned."""
        most_of = {"memory": self.most_memory, "cores": self.most_cores}
        assert most_of.keys() == QUANTITIES.keys()
        return Terms(
            least=self.least,
            most=self.most,
            aim=self.aim,
            cool_down=self.cool_down,
            patience=self.patience,
            time_limit=self.time_limit,
            budget=self.hours_a_day,
            has=self.has,
            features=self.features,
            most_of={name: most for name, most in most_of.items() if most is not None},
        )


@frozen(kw_only=True)
class Fleet:
    """The whole file. ``label`` marks workers at their engines, so that they are known again."""

    label: str = _key(
        '"NAME"', 'What workers are marked with at their engine.  [default: "builder"]', _label, "builder"
    )
    engines: Mapping[str, EngineSettings]
    platforms: Mapping[str, PlatformSettings]
    pods: Mapping[str, dict[str, object]]
    """The templates of pods, by platform."""


def read(path: Path) -> Fleet:
    """Return what a file says. Raises InvalidFleet, which names the key."""
    try:
        said = tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidFleet(f"can't read {path}: {getattr(error, 'strerror', None) or error}") from error
    try:
        return _fleet(said, path.parent)
    except (_Wrong, BuilderError) as error:
        raise InvalidFleet(f"{path}: {error}") from error


def _fleet(said: dict[str, Any], directory: Path) -> Fleet:
    engines = {
        name: _read(EngineSettings, {"kind": name, **table} if name in KINDS else table, f"engines.{name}")
        for name, table in _tables(said, "engines")
    }
    platforms = {
        name: _read(PlatformSettings, table, f"platforms.{name}") for name, table in _tables(said, "platforms")
    }
    if not platforms:
        raise _Wrong("there is no platform: write a table [platforms.NAME]")
    for name, engine in engines.items():
        _check_engine(name, engine)
        engines[name] = _placed(engine, directory)
    pods = {}
    for name, platform in platforms.items():
        where = f"platforms.{printable(name)}"
        if platform.engine not in engines:
            raise _Wrong(f"{where}.engine: there is no [engines.{printable(platform.engine or 'NAME')}]")
        if platform.least > platform.most:
            raise _Wrong(f"{where}.least: there may be {platform.most} at most")
        if engines[platform.engine].kind == "kubernetes":
            pods[name] = _pod(directory / platform.pod if platform.pod else None, f"{where}.pod")
    label = said.pop("label", "builder")
    if said:
        raise _Wrong(f"unknown key {next(iter(said))!r}; there are label, engines and platforms")
    return Fleet(label=_value(fields(Fleet).label, label, "label"), engines=engines, platforms=platforms, pods=pods)


def _tables(said: dict[str, Any], key: str) -> Iterator[tuple[str, dict[str, Any]]]:
    found = said.pop(key, {})
    if not isinstance(found, dict) or not all(isinstance(table, dict) for table in found.values()):
        raise _Wrong(f"{key}: write tables [{key}.NAME]")
    for name, table in found.items():
        check_name(name, what=f"name in [{key}.NAME]")
        yield name, table


def written(name: str) -> str:
    """Return how a field is called in the file."""
    return name.replace("_", "-")


def _read(kind: type[Any], table: dict[str, Any], where: str) -> Any:
    keys = {written(key.name): key for key in fields(kind) if key.metadata}
    for name in table:
        if name not in keys:
            raise _Wrong(f"{printable(where)}: unknown key {name!r}; there are {', '.join(keys)}")
    given = {
        key.name: _value(key, table[name], f"{printable(where)}.{name}") for name, key in keys.items() if name in table
    }
    required = {"engine", "kind"} & {key.name for key in keys.values()}
    if missing := required - given.keys():
        raise _Wrong(f"{printable(where)}: there is no key {missing.pop()}")
    return kind(**given)


def _value(key: Any, value: object, where: str) -> Any:
    try:
        return key.metadata["read"](value)
    except (_Wrong, BuilderError) as error:
        raise _Wrong(f"{where}: {error}") from error


def _check_engine(name: str, engine: EngineSettings) -> None:
    where = f"engines.{printable(name)}"
    if engine.kind == "command" and not (engine.ask and engine.list and engine.remove):
        raise _Wrong(f"{where}: a command needs ask, list and remove")
    if (engine.cert is None) is not (engine.key is None):
        raise _Wrong(f"{where}: cert and key belong together")


def _placed(engine: EngineSettings, directory: Path) -> EngineSettings:
    """Return an engine whose files are found from anywhere."""
    paths = {name: getattr(engine, name) for name in ("ca", "token_file", "cert", "key")}
    placed: Any = {name: str(directory / path) for name, path in paths.items() if path is not None}
    return evolve(engine, **placed)


def _pod(path: Path | None, where: str) -> dict[str, object]:
    if path is None:
        raise _Wrong(f"{where}: kubernetes needs the template of a pod")
    try:
        template = json.loads(path.read_text("utf-8"))
        containers = template["spec"]["containers"]
        if not isinstance(containers[0], dict):
            raise _Wrong(f"{where}: {path} has no container")
    except (OSError, ValueError, TypeError, LookupError) as error:
        reason = getattr(error, "strerror", None) or error
        raise _Wrong(f"{where}: {path} is no template of a pod, with spec.containers: {reason}") from error
    return dict(template)
