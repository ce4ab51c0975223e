"""Whether a host is the one that it should be: known_hosts, or a fingerprint that the user gave.

A key that is seen for the first time is never trusted. Files are read as sshd(8) tells of them:
plain names with wildcards, hashed ones, [host]:port, @revoked. Keys of authorities are passed over.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from v2v.errors import SourceError, UsageError
from v2v.inputs._ssh.config import Settings

# The algorithms that a key of a kind signs with; of the others it has the kind's own name.
ALGORITHMS = {"ssh-rsa": ("rsa-sha2-512", "rsa-sha2-256")}
FINGERPRINT = "SHA256:"


@dataclass(frozen=True, slots=True)
class HostKey:
    """What a host offers."""

    kind: str  # ssh-ed25519
    blob: bytes

    @property
    def algorithms(self) -> tuple[str, ...]:
        """That it signs with."""
        return ALGORITHMS.get(self.kind, (self.kind,))

    @property
    def fingerprint(self) -> str:
        """As ssh-keygen shows it: SHA256:, base64 without padding."""
        digest = base64.b64encode(hashlib.sha256(self.blob).digest()).decode().rstrip("=")
        return FINGERPRINT + digest


@dataclass(frozen=True, slots=True)
class Known:
    """A line about the host."""

    key: HostKey
    revoked: bool
    where: str  # FILE:LINE


def known_keys(settings: Settings) -> list[Known]:
    """What the files say of the host. Those that are not there say nothing."""
    return [one for file in settings.known_hosts for one in _of_file(file, settings.known_name)]


def preferred(algorithms: Sequence[str], known: Iterable[Known]) -> list[str]:
    """Those of keys that are known first: a host has several keys, and we may know one of them."""
    first = {name for one in known if not one.revoked for name in one.key.algorithms}
    return sorted(algorithms, key=lambda name: name not in first)


def is_wanted(key: HostKey, fingerprint: str) -> bool:
    return hmac.compare_digest(key.fingerprint.encode(), fingerprint.rstrip("=").encode())


def check_fingerprint(word: str | None) -> None:
    """UsageError for what is none."""
    if word is not None and not re.fullmatch(r"SHA256:[A-Za-z0-9+/]{43}=?", word):
        raise UsageError(
            f"-io ssh-hostkey={word}: not a fingerprint",
            id="option-value",
            hint="it is what `ssh-keygen -lf` shows: SHA256: and 43 characters",
        )


def check(key: HostKey, known: Sequence[Known], settings: Settings) -> None:
    """SourceError `ssh-host-key` unless the key is known as this host's."""
    same = [one for one in known if one.key == key]
    if any(one.revoked for one in same):
        raise _revoked(key, settings, next(one for one in same if one.revoked))
    if same:
        return
    others = [one for one in known if not one.revoked]
    raise _changed(key, settings, others[0]) if others else _unknown(key, settings)


def wrong_fingerprint(offered: Sequence[HostKey], settings: Settings) -> SourceError:
    return SourceError(
        f"{settings.shown}: the key of this host is not the one that -io ssh-hostkey names: "
        f"it offers {', '.join(map(_shown, offered))}",
        id="ssh-host-key",
        hint=f"compare with what the host itself says: {_on_the_host(offered[0])}",
    )


def _unknown(key: HostKey, settings: Settings) -> SourceError:
    return SourceError(
        f"{settings.shown}: the key of this host is not known here, so that it could be any host: "
        f"it offers {_shown(key)}" + _not_there(settings),
        id="ssh-host-key",
        hint=f"compare with what the host itself says ({_on_the_host(key)}); if it is the same, "
        f"give -io ssh-hostkey={key.fingerprint}",
    )


def _not_there(settings: Settings) -> str:
    """A path that was mistyped is told."""
    if any(file.exists() for file in settings.known_hosts):
        return ""
    return f"; not there: {', '.join(map(str, settings.known_hosts))}"


def _changed(key: HostKey, settings: Settings, known: Known) -> SourceError:
    file = shlex.quote(known.where.rpartition(":")[0])
    return SourceError(
        f"{settings.shown}: the key of this host is not the one that is known here: another host "
        f"may have taken its place. It offers {_shown(key)}, and {known.where} has "
        f"{_shown(known.key)}",
        id="ssh-host-key",
        hint="ask who runs it. If it was set up anew: "
        f"`ssh-keygen -R '{settings.known_name}' -f {file}`; "
        "v2v then tells how to compare the new one",
    )


def _revoked(key: HostKey, settings: Settings, known: Known) -> SourceError:
    return SourceError(
        f"{settings.shown}: the key of this host, {_shown(key)}, is revoked by {known.where}",
        id="ssh-host-key",
        hint="somebody may have stolen it. Ask who runs the host",
    )


def _shown(key: HostKey) -> str:
    return f"{key.kind} {key.fingerprint}"


def _on_the_host(key: HostKey) -> str:
    kind = "ecdsa" if key.kind.startswith("ecdsa") else key.kind.removeprefix("ssh-")
    return (
        f"`ssh-keygen -lf /etc/ssh/ssh_host_{kind}_key.pub` there, "
        "which ESXi has in /usr/lib/vmware/openssh/bin"
    )


def _of_file(file: Path, name: str) -> Iterator[Known]:
    try:
        lines = file.read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return
    except OSError as exc:
        raise UsageError(
            f"{file}: the known hosts cannot be read: {exc.strerror}",
            id="ssh-config",
            hint="name another file with -io ssh-known-hosts=FILE",
        ) from exc
    for number, line in enumerate(lines, 1):
        marker, *fields = line.split() if line.startswith("@") else ["", *line.split()]
        if len(fields) < 3 or fields[0].startswith("#") or marker == "@cert-authority":
            continue
        if _names(fields[0], name) and (blob := _decoded(fields[2])):
            yield Known(HostKey(fields[1], blob), marker == "@revoked", f"{file}:{number}")


def _names(patterns: str, name: str) -> bool:
    if patterns.startswith("|1|"):
        return _is_hash_of(patterns, name)
    found = [one for one in patterns.split(",") if _matches(one.lstrip("!").lower(), name.lower())]
    return bool(found) and not any(one.startswith("!") for one in found)


def _is_hash_of(word: str, name: str) -> bool:
    """|1|SALT|HMAC-SHA1 of the name, both in base64."""
    salt, _, digest = word.removeprefix("|1|").partition("|")
    made = hmac.new(_decoded(salt), name.encode(), hashlib.sha1).digest()
    return hmac.compare_digest(made, _decoded(digest))


def _matches(pattern: str, name: str) -> bool:
    """* and ? only: brackets are those around a host with a port."""
    escaped = re.escape(pattern).replace(r"\*", ".*").replace(r"\?", ".")
    return re.fullmatch(escaped, name) is not None


def _decoded(word: str) -> bytes:
    try:
        return base64.b64decode(word, validate=True)
    except binascii.Error:
        return b""
