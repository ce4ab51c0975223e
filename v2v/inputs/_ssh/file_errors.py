"""What may be wrong with a file on the other host: the same words, whatever reads it."""

from __future__ import annotations

import re

from v2v.errors import SourceError
from v2v.inputs._ssh.place import SshPlace
from v2v.texts import clean

MAX_WORDS = 300  # characters of what a host says

# What programs say in C, and what busybox says: the first that is found counts.
_KINDS = (
    (r"No such file|Not a directory|not found", "missing"),
    (r"Permission denied|Operation not permitted", "unreadable"),
    (r"busy|Resource temporarily|lock", "locked"),
)


def name_of(place: SshPlace, path: str) -> str:
    """For messages."""
    return clean(f"{place.shown}{path}".encode(errors="replace").decode())


def version_of(size: int, seconds: float) -> str:
    """The same from every reader, so that a job may go on with another one."""
    return f"{size}-{int(seconds)}"


def from_words(name: str, words: str) -> SourceError:
    """Why a file cannot be opened, told by what a program there said about it."""
    for pattern, kind in _KINDS:
        if re.search(pattern, words, re.IGNORECASE):
            return {"missing": missing, "unreadable": unreadable, "locked": locked}[kind](name)
    return read_failed(name, 0, words)


def missing(name: str) -> SourceError:
    return SourceError(
        f"{name} is not there",
        id="image-file-missing",
        hint="is the path right, and the datastore mounted on that host?",
    )


def unreadable(name: str) -> SourceError:
    return SourceError(
        f"{name}: the user on that host may not read it",
        id="source-unreadable",
        hint="log in as one who may: on ESXi that is root",
    )


def not_a_file(name: str) -> SourceError:
    return SourceError(
        f"{name}: not a regular file",
        id="source-unreadable",
        hint="name the file of a disk, or its descriptor",
    )


def locked(name: str) -> SourceError:
    return SourceError(
        f"{name}: the host does not open it, as ESXi does while a VM that uses it runs",
        id="source-locked",
        hint="shut the VM down; or make a snapshot, and read that",
    )


def wrong_size(name: str, told: int, found: str) -> SourceError:
    return SourceError(
        f"{name}: the host says that it has {told} bytes, and {found}",
        id="source-size",
        hint="does somebody write to it, or is the filesystem there damaged?",
    )


def changed(name: str) -> SourceError:
    return SourceError(
        f"{name} has changed while it was read",
        id="source-changed-while-copied",
        hint="shut the VM down, then resume",
    )


def read_failed(name: str, offset: int, why: str) -> SourceError:
    return SourceError(
        f"{name}: reading at byte {offset} failed: {clean(why[:MAX_WORDS])}",
        id="source-read",
        hint="can the file be read on the host itself? Its log tells more (on ESXi: vmkernel.log)",
    )


def odd_answer(name: str, what: str) -> SourceError:
    """The host breaks the protocol."""
    return SourceError(
        f"{name}: the host's answer makes no sense: {clean(what[:MAX_WORDS])}",
        id="source-read",
        hint="-io ssh-reader=helper, sftp or dd chooses another way to read",
    )
