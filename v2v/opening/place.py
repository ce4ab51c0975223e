"""Where a disk is reached, and what protects it there."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from v2v.errors import UsageError

SERVER_FILES = ("ca-cert.pem", "server-cert.pem", "server-key.pem")
CLIENT_FILES = ("ca-cert.pem", "client-cert.pem", "client-key.pem")
PSK_LINE = re.compile(r"\s*(?P<user>[^:\n]+):(?:[0-9A-Fa-f]{2})+\s*?(?:\n|$)")


@dataclass(frozen=True, slots=True)
class Place:
    uri: str
    socket: Path | None = None  # a Unix socket


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """One of the two. `certificates`: a folder with SERVER_FILES; clients need a certificate of the
    same authority. `psk_file`: lines of USER:KEY, the key in hexadecimal."""

    certificates: Path | None = None
    psk_file: Path | None = None


def check_tls(tls: Tls) -> None:
    """Refuse what nbdkit could not load, before the source is opened."""
    if tls.certificates:
        for name in SERVER_FILES:
            _read(tls.certificates / name)
    if tls.psk_file:
        user_of(tls.psk_file)


def user_of(psk_file: Path) -> str:
    """The first user that a file of keys knows."""
    match = PSK_LINE.match(_read(psk_file))
    if match is None:
        raise UsageError(
            f"{psk_file}: its first line is not USER:KEY, the key in hexadecimal",
            id="tls-files",
            hint=f"{shlex.join(['psktool', '-u', 'USER', '-p', str(psk_file)])} makes one",
        )
    return match["user"]


def tls_error(message: str) -> UsageError:
    return UsageError(
        message,
        id="tls-files",
        hint="--tls-certificates takes a folder with ca-cert.pem, server-cert.pem and "
        "server-key.pem; --tls-psk-file a file with lines of USER:KEY",
    )


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError as exc:
        raise tls_error(f"{path}: cannot be read: {exc.strerror}") from exc
