"""Where a disk is reached, and what protects it there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from v2v.errors import UsageError

SERVER_FILES = ("ca-cert.pem", "server-cert.pem", "server-key.pem")
CLIENT_FILES = ("ca-cert.pem", "client-cert.pem", "client-key.pem")


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
    user, colon, key = _read(psk_file).partition("\n")[0].strip().partition(":")
    if not (user and colon and key):
        raise UsageError(
            f"{psk_file}: its first line is not USER:KEY",
            id="tls-files",
            hint=f"psktool -u USER -p {psk_file} makes one",
        )
    return user


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError as exc:
        raise UsageError(
            f"{path}: cannot be read: {exc.strerror}",
            id="tls-files",
            hint="--tls-certificates takes a folder with ca-cert.pem, server-cert.pem and "
            "server-key.pem; --tls-psk-file a file with lines of USER:KEY",
        ) from exc
