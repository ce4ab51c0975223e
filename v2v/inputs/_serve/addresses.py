"""ssh://, iscsi:// and rbd:// addresses, taken apart."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from v2v.endpoint import read_query
from v2v.errors import UsageError

SSH = "ssh"
ISCSI = "iscsi"
RBD = "rbd"
FORMS = {
    SSH: "ssh://[USER@]HOST[:PORT]/PATH",
    ISCSI: "iscsi://[USER@]HOST[:PORT]/TARGET/LUN",
    RBD: "rbd://[USER@][MONITOR[:PORT]]/POOL/[NAMESPACE/]IMAGE[@SNAPSHOT][?conf=FILE]",
}


@dataclass(frozen=True, slots=True)
class Address:
    scheme: str
    host: str  # without the brackets of IPv6; empty when there is none
    port: int | None
    user: str | None
    path: str  # from its first slash
    query: dict[str, str]

    def words(self) -> list[str]:
        """What is between the slashes of the path."""
        return self.path[1:].split("/")

    def login(self) -> str:
        """What is written after `ssh` to get there."""
        port = ["-p", str(self.port)] if self.port is not None else []
        return shlex.join([*port, f"{self.user}@{self.host}" if self.user else self.host])


def scheme_of(location: str) -> str:
    return location.partition("://")[0].lower() if "://" in location else ""


def parse(uri: str) -> Address:
    """UsageError for what is no such address, or holds a password."""
    scheme = scheme_of(uri)
    try:
        parts = urlsplit(uri)
        host, port = parts.hostname or "", parts.port
    except ValueError as exc:
        raise invalid(uri) from exc
    user = unquote(parts.username) if parts.username is not None else None
    if parts.password is not None or "%" in (user or ""):
        raise UsageError(
            f"{scheme}://{host}: a password in the address would be kept in logs",
            id="password-in-uri",
            hint="put it in a file and give that with -ip; leave only the user in the address",
        )
    query = read_query(parts.query)
    if not parts.path.strip("/") or (not host and scheme != RBD):
        raise invalid(uri)
    if host.startswith("-") or (user or "").startswith("-"):  # ssh would take it for an option
        raise invalid(uri)
    return Address(scheme, host, port, user, unquote(parts.path), query)


def invalid(uri: str) -> UsageError:
    return UsageError(
        f"{uri}: not an address of this kind",
        id="uri-invalid",
        hint=f"{FORMS[scheme_of(uri)]}; a password goes into a file, given with -ip",
    )
