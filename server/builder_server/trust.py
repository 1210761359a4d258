"""Which certificate authorities are trusted: those that the system trusts, unless the operator names others."""

import os
import ssl
from collections.abc import Mapping
from pathlib import Path

import certifi

from builder.errors import InvalidEnvironment
from builder.reasons import reason_of


def trusting(environ: Mapping[str, str]) -> ssl.SSLContext:
    """Return how the servers of https:// URLs are to prove who they are. Raises InvalidEnvironment.

    ``SSL_CERT_FILE`` (certificates) and ``SSL_CERT_DIR`` (directories of them, as `openssl rehash` makes them, with
    colons between) take the place of the system's store.
    """
    # verifies, as one from create_default_context; but that one fails for a wrong SSLKEYLOGFILE, which writes down the
    # keys, and from Python 3.13 on it refuses authorities of organisations that lack an extension
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    file, directories = environ.get("SSL_CERT_FILE"), environ.get("SSL_CERT_DIR")
    if directories and not any(map(os.path.isdir, directories.split(os.pathsep))):
        raise InvalidEnvironment(f"SSL_CERT_DIR names no directory: {directories}")
    if file or directories:
        try:
            context.load_verify_locations(file or None, directories or None)
        except OSError as error:
            raise InvalidEnvironment(f"SSL_CERT_FILE: no certificates in {file}: {reason_of(error)}") from error
    elif _system_has_some():
        context.set_default_verify_paths()
    else:
        context.load_verify_locations(certifi.where())
    return context


def _system_has_some() -> bool:
    """Say whether there is a store: a small container, or a Python from elsewhere, may have none."""
    paths = ssl.get_default_verify_paths()
    return paths.cafile is not None or (paths.capath is not None and any(Path(paths.capath).iterdir()))
