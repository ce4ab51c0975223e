"""A source that changed since its job was started, or may have: what of the job is worth nothing.

A disk that does not tell whether it changed counts as changed, as long as any of the job's disks
has to be read again: the target would mix what it was with what it is. That is so for all such
disks of the VM, also those that are copied: they belong together.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import zip_longest

from v2v.copy.ledger import Ledger
from v2v.input import tells_changes
from v2v.output import DATA, forget_progress, is_begun, is_copied, ledger_path
from v2v.run import Run
from v2v.types import Source, SourceDisk


def changed_disks(before: Source, now: Source) -> list[int]:
    """The numbers, from 0, of the disks that are not what they were.

    Where the target puts them is the user's matter, and not a part of what was read.
    """
    pairs = enumerate(zip_longest(_as_read(before), _as_read(now)))
    return [index for index, (one, other) in pairs if one != other]


def _as_read(source: Source) -> list[SourceDisk]:
    return [replace(disk, target_storage=None) for disk in source.disks]


def names_of(disks: Sequence[int], source: Source) -> str:
    """The disks as people know them."""
    known = [source.disks[index].location for index in disks if index < len(source.disks)]
    return ", ".join(known) or "the number of disks"


def doubtful_disks(before: Source, now: Source, run: Run) -> list[int]:
    """The disks that may have changed unseen, where something was made that this would spoil."""
    changed = changed_disks(before, now)
    doubtful = [
        index
        for index, disk in enumerate(now.disks)
        if index not in changed and not tells_changes(disk)
    ]
    if now == before and _is_all_copied(len(before.disks), run):
        return []
    return doubtful if _is_made(doubtful, run) else []


def start_again(before: Source, now: Source, doubtful: Sequence[int], run: Run) -> None:
    """Forget what was made of disks that changed, or may have, and the conversion.

    What was copied of the others is kept. It is safe to be killed at any point of this, as long as
    the journal holds the old source.
    """
    changed = changed_disks(before, now)
    count = len(before.disks)
    if now != before and _is_made(range(count), run):
        _warn(changed, before, run)
    if doubtful:
        _warn_of_doubt(doubtful, now, run)
    forget_progress(run, [index for index in (*changed, *doubtful) if index < count])
    for index in range(count):
        if is_begun(run, index):
            _forget_conversion(index, run)
    run.journal.drop(["guest", *(f"copied:{index}" for index in range(count))])
    if _shape(before) != _shape(now) or any(now.disks[index].size is None for index in doubtful):
        forget_progress(run)
        run.journal.drop(["disks", DATA])


def _is_made(disks: Iterable[int], run: Run) -> bool:
    """Whether the guest is converted, or anything of these disks copied."""
    some = any(is_begun(run, index) or is_copied(run, index) for index in disks)
    return some or "guest" in run.journal


def _is_all_copied(count: int, run: Run) -> bool:
    """No byte of the source is read any more."""
    return "guest" in run.journal and all(is_copied(run, index) for index in range(count))


def _warn(changed: Sequence[int], source: Source, run: Run) -> None:
    if changed:
        run.warn(
            f"{names_of(changed, source)} changed since the job was started: "
            "it is copied again, from the beginning",
            id="source-changed",
        )
    else:
        run.warn(
            f"{source.name} is described differently since the job was started: "
            "it is converted again",
            id="source-changed",
        )


def _warn_of_doubt(disks: Sequence[int], source: Source, run: Run) -> None:
    run.warn(
        f"{names_of(disks, source)} cannot tell whether it changed since the job was started: "
        "it is copied again, from the beginning",
        id="source-unverifiable",
        hint="where nobody writes to the source, `v2v resume --source-unchanged` goes on where a "
        "job was; so does `v2v resume` with a file of this host, or one on a web server that tells "
        "its ETag or Last-Modified",
    )


def _forget_conversion(index: int, run: Run) -> None:
    """What the target has of a conversion, which will not be made the same again."""
    ledger = Ledger(ledger_path(run, index))
    ledger.forget(ledger.done("overlay"))


def _shape(source: Source) -> tuple[object, ...]:
    """What the target's disks were made for."""
    return source.name, [disk.size for disk in source.disks]
