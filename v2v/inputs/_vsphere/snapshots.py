"""The snapshots of a VM."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from v2v.errors import UsageError
from v2v.inputs._vsphere.names import plain_name
from v2v.options import did_you_mean
from v2v.texts import clean, clean_name

MAX_SNAPSHOTS = 1000


@dataclass(frozen=True, slots=True)
class Snapshot:
    id: str  # its managed object reference: snapshot-12
    number: int  # counted per VM
    name: str
    created: str  # ISO 8601


def read_snapshots(info: Any) -> tuple[Snapshot, ...]:
    """Oldest first, from VirtualMachine.snapshot."""
    found: list[Snapshot] = []
    trees = list(getattr(info, "rootSnapshotList", None) or ())
    while trees and len(found) < MAX_SNAPSHOTS:
        tree = trees.pop(0)
        trees += tree.childSnapshotList or ()
        found.append(
            Snapshot(
                tree.snapshot._moId,
                tree.id or 0,
                clean_name(plain_name(tree.name or "")) or f"snapshot {tree.id}",
                tree.createTime.isoformat() if tree.createTime else "",
            )
        )
    return tuple(sorted(found, key=lambda one: (one.created, one.number)))


def find_snapshot(snapshots: Sequence[Snapshot], word: str, name: str) -> Snapshot:
    """The one of that name, of id=N, or of that reference. `name` is the VM's, for messages."""
    wanted = _plain(plain_name(word))
    ways = (
        [one for one in snapshots if _plain(one.name) == wanted],
        [one for one in snapshots if word in (one.id, f"moref={one.id}", f"id={one.number}")],
    )
    for found in ways:
        if len(found) == 1:
            return found[0]
        if found:
            raise _ambiguous(found, word, name)
    names = [one.name for one in snapshots]
    raise UsageError(
        f"{name} has no snapshot {word!r}",
        id="snapshot-unknown",
        hint=did_you_mean(word, names)
        or (f"it has {', '.join(names)}" if names else "it has none: leave out -io snapshot"),
    )


def _ambiguous(found: Sequence[Snapshot], word: str, name: str) -> UsageError:
    told = ", ".join(f"id={one.number} ({clean(one.created)})" for one in found)
    return UsageError(
        f"{name} has {len(found)} snapshots called {word!r}",
        id="snapshot-ambiguous",
        hint=f"give the number of one instead of the name: {told}",
    )


def _plain(text: str) -> str:
    """macOS writes é as two characters, others as one."""
    return unicodedata.normalize("NFC", text)
