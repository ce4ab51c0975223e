"""Where to connect, and how: what the user said, then ~/.ssh/config, then what OpenSSH does."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from getpass import getuser
from pathlib import Path
from typing import Any

from v2v.errors import UsageError
from v2v.inputs._ssh.place import SshPlace

SSH_PORT = 22
CONNECT_SECONDS = 15.0
ALIVE_SECONDS = 15.0  # between questions whether the host still answers
MAX_INCLUDES = 16  # levels, as OpenSSH
SYSTEM_CONFIG = Path("/etc/ssh/ssh_config")
SYSTEM_KNOWN_HOSTS = "/etc/ssh/ssh_known_hosts /etc/ssh/ssh_known_hosts2"
USER_KNOWN_HOSTS = "~/.ssh/known_hosts ~/.ssh/known_hosts2"
DEFAULT_KEYS = ("id_ed25519", "id_ecdsa", "id_rsa")

# Those that need no MAC beside them come first: on a CPU with AES instructions twice as fast.
CIPHERS = (
    "aes128-gcm@openssh.com",
    "aes256-gcm@openssh.com",
    "aes128-ctr",
    "aes192-ctr",
    "aes256-ctr",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Of one host; nothing is left open."""

    shown: str  # for messages
    host: str
    port: int
    user: str
    known_name: str  # what files of known hosts call it
    known_hosts: tuple[Path, ...]
    identities: tuple[Path, ...]  # the keys to try; files that may not be there
    identity_named: bool  # by the user or ~/.ssh/config, rather than the usual ones
    identities_only: bool  # no keys of the agent beside those
    ciphers: tuple[str, ...]
    jumps: tuple[str, ...]  # hosts to go through, the nearest first
    proxy_command: str | None
    connect_seconds: float
    alive_seconds: float

    @property
    def who(self) -> str:
        """What the user is asked the password of."""
        return f"{self.user}@{self.host}"

    @property
    def account(self) -> str:
        return f"{self.who}:{self.port}"


def settings_of(place: SshPlace) -> Settings:
    """UsageError `ssh-config` if ~/.ssh/config cannot be understood."""
    try:
        found = _lookup(place.host)
        return _settings(place, found)
    except (OSError, ValueError, KeyError) as exc:
        raise _not_understood(str(exc)) from exc


def _lookup(host: str) -> Mapping[str, Any]:
    """What the files say of the host: the first value of each setting counts."""
    from paramiko import SSHConfig, SSHException

    config = SSHConfig()
    try:
        for file in (Path("~/.ssh/config").expanduser(), SYSTEM_CONFIG):
            config.parse(io.StringIO("\n".join(_lines(file))))
        found: Mapping[str, Any] = config.lookup(host)
    except SSHException as exc:
        raise _not_understood(str(exc)) from exc
    return found


def _lines(file: Path, level: int = 0) -> Iterator[str]:
    """Of a file and those that it includes. No command of `Match exec` is run: it never matches."""
    if level > MAX_INCLUDES or not file.is_file():
        return
    for line in file.read_text(errors="surrogateescape").splitlines():
        key, _, rest = re.sub(r"\s*[=\s]\s*", " ", line.strip(), count=1).partition(" ")
        if key.lower() == "include":
            for pattern in rest.replace('"', "").split():
                for found in _glob(pattern):
                    yield from _lines(found, level + 1)
        elif key.lower() == "match" and re.search(r"\b(local)?exec\b", rest, re.IGNORECASE):
            yield "Host !*"
        else:
            yield line


def _glob(pattern: str) -> list[Path]:
    path = Path("~/.ssh").expanduser() / Path(pattern).expanduser()
    return sorted(Path(path.anchor).glob(str(path.relative_to(path.anchor))))


def _settings(place: SshPlace, found: Mapping[str, Any]) -> Settings:
    host = str(found.get("hostname", place.host))
    port = place.port or int(found.get("port", SSH_PORT))
    named = [place.identity] if place.identity else _paths(found.get("identityfile", ()))
    jumps = str(found.get("proxyjump", "none"))
    return Settings(
        shown=place.shown,
        host=host,
        port=port,
        user=place.user or found.get("user") or getuser(),
        known_name=found.get("hostkeyalias")
        or (host.lower() if port == SSH_PORT else f"[{host.lower()}]:{port}"),
        known_hosts=_known_hosts(place, found),
        identities=tuple(named or _paths(f"~/.ssh/{name}" for name in DEFAULT_KEYS)),
        identity_named=bool(named),
        identities_only=bool(place.identity) or found.get("identitiesonly", "").lower() == "yes",
        ciphers=_ciphers(found.get("ciphers")),
        jumps=() if jumps.lower() == "none" else tuple(jumps.split(",")),
        proxy_command=found.get("proxycommand"),
        connect_seconds=float(found.get("connecttimeout", CONNECT_SECONDS)),
        alive_seconds=float(found.get("serveraliveinterval", 0)) or ALIVE_SECONDS,
    )


def _known_hosts(place: SshPlace, found: Mapping[str, Any]) -> tuple[Path, ...]:
    if place.known_hosts is not None:
        return (place.known_hosts,)
    users = found.get("userknownhostsfile", USER_KNOWN_HOSTS)
    systems = found.get("globalknownhostsfile", SYSTEM_KNOWN_HOSTS)
    return tuple(_paths(f"{users} {systems}".replace('"', "").split()))


def _paths(words: Any) -> list[Path]:
    return [Path(word).expanduser() for word in words if word.lower() != "none"]


def _ciphers(wanted: str | None) -> tuple[str, ...]:
    """Ours, as the setting orders, adds to or takes from them."""
    if wanted is None:
        return CIPHERS
    names = wanted.lstrip("+-^").split(",")
    chosen = {
        "+": CIPHERS,
        "-": _without(CIPHERS, names),
        "^": (*_only(names), *_without(CIPHERS, names)),
    }.get(wanted[0], _only(names))
    if not chosen:
        raise ValueError(f"Ciphers {wanted}: none of {', '.join(CIPHERS)}")
    return chosen


def _only(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(one for name in names for one in CIPHERS if fnmatchcase(one, name))


def _without(ciphers: Sequence[str], names: Sequence[str]) -> tuple[str, ...]:
    return tuple(one for one in ciphers if not any(fnmatchcase(one, name) for name in names))


def _not_understood(what: str) -> UsageError:
    return UsageError(
        f"~/.ssh/config cannot be understood: {what}",
        id="ssh-config",
        hint="`ssh -G HOST` shows what OpenSSH makes of it",
    )
