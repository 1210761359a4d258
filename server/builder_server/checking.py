"""What is wrong with a server's options, as far as that can be told without starting it: all of it, not only the first thing."""

import os
import re
import socket
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from builder.errors import BuilderError
from builder.reasons import reason_of
from builder.runtime.tls import TlsFiles
from builder_server import credentials, templates
from builder_server.certified import Certificates
from builder_server.listening import Users, refuse_strangers, why_not
from builder_server.names import REVOKED, check_platform_name
from builder_server.receiver import receivers_at
from builder_server.served import NOT_SHARED, Served
from builder_server.server import wall_clock

Given = Mapping[str, Any]


def faults(given: Given) -> Iterator[str]:
    """Return a line for each thing that is wrong. A value that is None was wrong by itself, or was not given."""
    if given["dir"] is not None:
        yield from _data_dir(given["dir"])
    yield from _database(given)
    if given["config_dir"] is not None:
        yield from _templates(given["config_dir"])
    yield from _addresses(given)
    yield from _raised(Users.of, given["allow_user"] or ())
    yield from _certificates(given)
    yield from _uploads(given)


def _raised(action: Callable[..., object], *arguments: object) -> Iterator[str]:
    try:
        action(*arguments)
    except (BuilderError, ValueError) as error:
        yield str(error)


def _data_dir(path: Path) -> Iterator[str]:
    if not path.is_dir():
        yield f"--dir: there is no directory {path}: create it, or name another"
    elif not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        yield f"--dir: {path} can't be written by this user"


def _database(given: Given) -> Iterator[str]:
    directory, address, password_file = (given[name] for name in ("dir", "database", "database_password_file"))
    if directory is not None:
        yield from _raised(Served(directory=directory, database=address, password_file=password_file).place)
    if address is None and (given["name"] or given["advertise"]):
        yield NOT_SHARED
    if password_file is not None and not os.access(password_file, os.R_OK):
        yield f"--database-password-file: {password_file} can't be read by this user"


def _templates(directory: Path) -> Iterator[str]:
    try:
        paths = sorted(directory.glob(f"{templates.PREFIX}*"))
    except OSError as error:
        yield f"--config-dir: {directory} can't be read: {error.strerror}"
        return
    for path in paths:
        platform = path.name.removeprefix(templates.PREFIX)
        yield from (f"{path}: {reason}" for reason in _raised(check_platform_name, platform))
        try:
            template = templates.read_template(directory, platform)
        except OSError as error:
            yield f"{path} can't be read: {error.strerror}"
            continue
        if template is None:
            yield f"{path} is no file that can be a script"
        elif unknown := sorted(set(re.findall(rb"%%\w+%%", template)) - {b"%%OPAM_PACKAGE%%", b"%%PLATFORM%%"}):
            yield f"{path} has {unknown[0].decode('ascii', 'replace')}, which stands for nothing"


def _addresses(given: Given) -> Iterator[str]:
    for address in given["ip"] or ():
        reason, hosts = _hosts(address)
        if reason:
            yield f"--ip: {reason}"
        elif given["tls_cert"] is None and not given["insecure"]:
            for host in hosts:
                yield from _raised(refuse_strangers, host, address)
    if given["metrics"] and (reason := _hosts(given["metrics"][0])[0]):
        yield f"--metrics: {reason}"
    if (path := given["unix"]) and not path.absolute().parent.is_dir():
        yield f"--unix: there is no directory {path.absolute().parent}"


def _hosts(address: str) -> tuple[str, list[str]]:
    """Return why an address is not one of this machine's, if it is none, and its hosts. The port may be a running server's."""
    hosts = []
    try:
        for family, kind, _, _, found in socket.getaddrinfo(
            address, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        ):
            with socket.socket(family, kind) as trial:
                trial.bind(found)
                hosts.append(str(found[0]))
    except (OSError, UnicodeError) as error:
        return f"can't listen on {address}: {why_not(address, error)}", []
    return "", hosts


def _certificates(given: Given) -> Iterator[str]:
    names = "tls_cert", "tls_key", "tls_client_ca"
    certificate, key, ca = (given[name] for name in names)
    if certificate is None and key is None and ca is None:
        return
    if certificate is None or key is None or ca is None:
        missing = next(name for name in names if given[name] is None)
        yield f"--{missing.replace('_', '-')} is missing: TLS needs certificate, key and authority"
        return
    unreadable = [*_unreadable({name: given[name] for name in names})]
    if unreadable:
        yield from unreadable
        return
    crl = given["tls_crl"] or ca.with_name("crl.pem")
    files = TlsFiles(certificate=certificate, key=key, ca=ca)
    try:
        seen = given["dir"] and given["dir"] / REVOKED
        found = Certificates(files, crl, wall_clock, must_exist=given["tls_crl"] is not None, seen=seen)
    except BuilderError as error:
        yield str(error)
        return
    yield from found.warnings()
    for each in found.expiring():
        if each.expires <= wall_clock():
            yield f"{each.name} ended on {each.expires.isoformat()}: renew it"


def _unreadable(files: Mapping[str, Path]) -> Iterator[str]:
    for name, path in files.items():
        try:
            with path.open("rb"):
                pass
        except OSError as error:
            yield f"--{name.replace('_', '-')}: can't read {path}: {reason_of(error)}"


def _uploads(given: Given) -> Iterator[str]:
    urls = given["upload"] or ()
    try:
        if path := given["upload_credentials_file"] or credentials.default_path(os.environ):
            urls = credentials.with_credentials(urls, path)
    except BuilderError as error:
        yield str(error)
    seen = set()
    for url in urls:
        yield from (f"--upload: {reason}" for reason in _raised(receivers_at, [url], os.environ))
        if url in seen:
            yield "--upload: a URL is given twice"
        seen.add(url)
