"""Options of the modes that read a host over SSH."""

from __future__ import annotations

from typing import Any

from v2v.inputs import _options as common
from v2v.inputs._ssh.place import SshPlace, SshReader
from v2v.options import option


def reader() -> Any:
    return option(
        "-io ssh-reader",
        "what reads the files there: a program of ours that the host's Python runs, SFTP, or dd; "
        "auto takes the first of them that works",
        default=SshReader.AUTO,
    )


def known_hosts() -> Any:
    return common.known_hosts("v2v")


def host_key() -> Any:
    return option(
        "-io ssh-hostkey",
        "the fingerprint that the host's key must have, as `ssh-keygen -lf` shows it; "
        "files of known hosts do not count then",
        default=None,
        metavar="SHA256:...",
    )


def identity() -> Any:
    return common.identity("v2v")


def place_of(
    options: object, *, host: str, port: int | None = None, user: str | None = None
) -> SshPlace:
    """From the options of a mode, in which those above have the names that SshPlace has."""
    return SshPlace(
        host=host,
        port=port,
        user=user,
        password_file=getattr(options, "password_file", None),
        known_hosts=getattr(options, "known_hosts", None),
        host_key=getattr(options, "host_key", None),
        identity=getattr(options, "identity", None),
        reader=getattr(options, "reader", SshReader.AUTO),
    )
