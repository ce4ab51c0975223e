"""Addresses of disks and of hosts, as URIs: the one place that takes them apart and writes them.

    scheme://[USER@]HOST[:PORT]/PATH[?KEY=VALUE&...]

Names are percent-encoded: `parse` decodes them once, `write` encodes them once. A `+` is a plus;
only in web forms is it a space. Passwords are never in an address.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from v2v.errors import UsageError

NBD_SCHEMES = ("nbd", "nbds", "nbd+unix", "nbds+unix")
NBD_FILES = ("socket", "tls-psk-file", "tls-certificates")  # of an NBD address; of this host
MAX_PORT = 65535
INPUT_LOGIN, OUTPUT_LOGIN = "-ip", "-op"  # the options that take the file of a password
HOST = re.compile(r"[\w:][\w.:%-]*")  # a name or an IP address; none is an option of ssh


@dataclass(frozen=True, slots=True)
class Address:
    """Nothing in it is encoded."""

    scheme: str  # in small letters
    host: str = ""  # without the brackets of IPv6; empty when there is none
    port: int | None = None
    user: str | None = None
    path: str = ""  # from its first slash
    query: Mapping[str, str] = field(default_factory=dict)

    def write(self) -> str:
        user = f"{quote(self.user, safe='@')}@" if self.user else ""
        host = f"[{quote(self.host, safe=':')}]" if ":" in self.host else quote(self.host, safe="")
        port = "" if self.port is None else f":{self.port}"
        query = urlencode(self.query, safe="/", quote_via=quote)
        path = quote(self.path, safe="/@")
        return f"{self.scheme}://{user}{host}{port}{path}" + (f"?{query}" if query else "")

    def without(self, keys: Iterable[str]) -> Address:
        """The same without these parameters."""
        return replace(self, query={k: v for k, v in self.query.items() if k not in keys})

    def anchored(self) -> Address:
        """The same NBD address, whose files do not depend on the current folder."""
        files = {key: self.query[key] for key in NBD_FILES if self.query.get(key)}
        return replace(
            self, query={**self.query, **{k: str(Path(v).absolute()) for k, v in files.items()}}
        )


def parse(uri: str, *, login: str = INPUT_LOGIN) -> Address:
    """UsageError for what is no address, or holds a password; neither repeats what may be one.

    login: the option that takes the file of a password.
    """
    _refuse_password(uri, login)
    try:
        parts = urlsplit(uri)
        host, port = unquote(parts.hostname or ""), parts.port
    except ValueError as exc:  # its text would repeat a password with a slash in it
        raise _invalid(uri, "its port is no number", login) from exc
    user = unquote(parts.username or "") or None
    if port == 0:
        raise _invalid(uri, "its port is 0", login)
    if host and not is_host(host):
        raise _invalid(uri, "it names no host", login)
    if user and user.startswith("-"):  # ssh would take it for an option
        raise _invalid(uri, "it names no user", login)
    query = dict(parse_qsl(parts.query.replace("+", "%2B"), keep_blank_values=True))
    return Address(parts.scheme.lower(), host, port, user, unquote(parts.path), query)


def is_host(name: str) -> bool:
    return HOST.fullmatch(name) is not None


def scheme_of(location: str) -> str:
    """In small letters; empty for what is a path."""
    return location.partition("://")[0].lower() if "://" in location else ""


def _refuse_password(uri: str, login: str) -> None:
    """They are shown, and kept. iSCSI's tools also know USER%PASSWORD."""
    scheme, _, rest = uri.partition("://")
    user, _, host = rest.partition("/")[0].rpartition("@")
    if ":" in user or (scheme.lower() == "iscsi" and "%" in unquote(user)):
        raise UsageError(
            f"{scheme}://{host}: a password in the address would be kept in logs",
            id="password-in-uri",
            hint=f"{_secret_place(scheme.lower(), login)}; leave only the user in the address",
        )


def _invalid(uri: str, why: str, login: str) -> UsageError:
    return UsageError(
        f"{scheme_of(uri)}://...: not an address: {why}",
        id="uri-invalid",
        hint=f"scheme://[USER@]HOST[:PORT]/PATH; {_secret_place(scheme_of(uri), login)}",
    )


def _secret_place(scheme: str, login: str) -> str:
    if scheme in NBD_SCHEMES:
        return "NBD has no passwords, but keys: ?tls-psk-file=FILE"
    return f"a password goes into a file, given with {login}"
