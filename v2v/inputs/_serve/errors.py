"""Why a disk cannot be served: what its server said last, in words that help."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from v2v import process
from v2v.address import scheme_of
from v2v.errors import HostError, SourceError, V2VError
from v2v.inputs._details import shown
from v2v.inputs._serve.addresses import FORMS, login, parse
from v2v.run import Run
from v2v.types import SourceDisk

# Errors of ours that only mean that a server has ended, or has refused.
CONSEQUENCES = ("server-ended", "server-timeout", "nbd-unreachable", "nbd-lost", "source-read")


@dataclass(frozen=True, slots=True)
class Told:
    """What there is to say."""

    what: str  # the disk
    words: str  # the server's last ones
    login: str  # what is written after `ssh` to get there
    scheme: str


def explained(exc: V2VError, disk: SourceDisk, run: Run, name: str) -> V2VError:
    """The error to raise for `exc`, which the server NAME caused: its last words tell why."""
    if exc.id not in CONSEQUENCES:
        return exc
    log = run.folder / "log" / f"{name}.log"
    words = process.last_line(process.log_text(log)) or exc.message
    return from_words(words, disk, log)


def from_words(words: str, disk: SourceDisk, log: Path) -> V2VError:
    if words.startswith("qemu-nbd: Failed to"):  # then it repeats all of its options
        words = words.rpartition("': ")[2]
    scheme = scheme_of(disk.location)
    there = login(parse(disk.location)) if scheme in FORMS else ""
    told = Told(shown(disk), words, there, scheme)
    for pattern, error in KNOWN:
        if re.search(pattern, words):
            return error(told)
    return SourceError(
        f"{told.what} cannot be served: {words}",
        id="source-serve",
        hint=f"the server's log is {log}",
    )


def _large_blocks(told: Told) -> V2VError:
    return SourceError(
        f"{told.what} cannot be served: {told.words}",
        id="source-serve",
        hint="unpack it first: `xz -d`; or pack it again with `xz --block-size=16MiB`",
    )


def _unknown_host(told: Told) -> V2VError:
    return SourceError(
        f"{told.what}: the key of this host is not known here, so that it could be any host",
        id="ssh-host-key",
        hint=f"`ssh {told.login}` once, compare the fingerprint with the host's own, and accept it",
    )


def _changed_host(told: Told) -> V2VError:
    return SourceError(
        f"{told.what}: the key of this host is not the one that is known here: "
        "another host may have taken its place",
        id="ssh-host-key",
        hint="ask who runs it. If it was set up anew: `ssh-keygen -R HOST`, "
        f"then `ssh {told.login}`",
    )


def _ssh_login(told: Told) -> V2VError:
    return SourceError(
        f"{told.what}: the host does not let us in",
        id="ssh-login",
        hint="give a file with the password (-ip FILE), or a key; "
        f"`ssh {told.login}` must work from here",
    )


def _ssh_unreachable(told: Told) -> V2VError:
    return SourceError(
        f"{told.what}: cannot connect: {told.words.partition('remote host: ')[2]}",
        id="ssh-unreachable",
        hint="is the address right, and the host's SSH server running?",
    )


def _no_file(told: Told) -> V2VError:
    return SourceError(
        f"{told.what}: no such file on that host", id="source-missing", hint="is the path right?"
    )


def _no_permission(told: Told) -> V2VError:
    return SourceError(
        f"{told.what}: the user on that host may not read it",
        id="source-unreadable",
        hint="log in as one who may",
    )


def _no_driver(told: Told) -> V2VError:
    return HostError(
        f"{told.what}: QEMU's driver for it is not installed",
        id="qemu-driver-missing",
        hint="install it: apt-get install qemu-block-extra, "
        f"or dnf install qemu-block-{told.scheme}",
    )


def _iscsi_login(told: Told) -> V2VError:
    return SourceError(
        f"{told.what}: the iSCSI target does not let us in: {told.words}",
        id="iscsi-login",
        hint="give the user in the address, and a file with the password: -ip FILE",
    )


def _iscsi_unreachable(told: Told) -> V2VError:
    return SourceError(
        f"{told.what}: the iSCSI target does not answer",
        id="iscsi-unreachable",
        hint="is the address right, and the target running?",
    )


# What servers say, as regular expressions; the first that is found counts.
KNOWN: tuple[tuple[str, Callable[[Told], V2VError]], ...] = (
    (r"xz.*block", _large_blocks),
    (r"host key is unknown", _unknown_host),
    (r"host key .*(changed|another type)", _changed_host),
    (r"authentication methods failed", _ssh_login),
    (r"failed to connect to remote host: ", _ssh_unreachable),
    (r"cannot open file for reading: .*No such file", _no_file),
    (r"cannot open file for reading: .*Permission denied", _no_permission),
    (r"Unknown (driver|protocol) '(iscsi|rbd)'", _no_driver),
    (r"iSCSI: .*[Aa]uth(enticat|ori[sz])|CHAP username", _iscsi_login),
    (r"iSCSI: .*(Can not reconnect|iscsi_connect)", _iscsi_unreachable),
)
