"""Which host is reached over SSH, and how: a value without secrets."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path


class SshReader(StrEnum):
    """How the bytes of files are fetched."""

    AUTO = "auto"  # the first of the others that works there
    HELPER = "helper"  # a program of ours that the host's Python runs; nothing is installed
    SFTP = "sftp"
    DD = "dd"


@dataclass(frozen=True, slots=True, kw_only=True)
class SshPlace:
    """What ~/.ssh/config says of the host holds where a field is None."""

    host: str  # as the user wrote it: maybe an alias of ~/.ssh/config
    port: int | None = None
    user: str | None = None
    password_file: Path | None = None  # its first line; maybe /proc/PID/fd/N
    known_hosts: Path | None = None
    host_key: str | None = None  # SHA256:..., the fingerprint that the host's key must have
    identity: Path | None = None
    reader: SshReader = SshReader.AUTO

    @property
    def shown(self) -> str:
        """For messages: ssh://root@esxi:22, as far as the user wrote it."""
        user = f"{self.user}@" if self.user else ""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"ssh://{user}{host}" + (f":{self.port}" if self.port else "")
