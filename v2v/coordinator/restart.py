"""A source that changed since its job was started: what of the job is worth nothing any more."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

from v2v.copy.ledger import Ledger
from v2v.output import DATA, forget_progress, is_begun, ledger_path
from v2v.run import Run
from v2v.types import Source


def changed_disks(before: Source, now: Source) -> list[int]:
    """The numbers, from 0, of the disks that are not what they were."""
    pairs = enumerate(zip_longest(before.disks, now.disks))
    return [index for index, (one, other) in pairs if one != other]


def names_of(disks: Sequence[int], source: Source) -> str:
    """The disks as people know them."""
    known = [source.disks[index].location for index in disks if index < len(source.disks)]
    return ", ".join(known) or "the number of disks"


def start_again(before: Source, now: Source, run: Run) -> None:
    """Forget what was made of disks that changed, and the conversion; what did not is kept.

    It is safe to be killed at any point of this, as long as the journal holds the old source.
    """
    changed = changed_disks(before, now)
    count = len(before.disks)
    if "guest" in run.journal or any(is_begun(run, index) for index in range(count)):
        _warn(changed, before, run)
    forget_progress(run, [index for index in changed if index < count])
    for index in range(count):
        if is_begun(run, index):
            _forget_conversion(index, run)
    run.journal.drop(["guest", *(f"copied:{index}" for index in range(count))])
    if _shape(before) != _shape(now):
        forget_progress(run)
        run.journal.drop(["disks", DATA])


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


def _forget_conversion(index: int, run: Run) -> None:
    """What the target has of a conversion, which will not be made the same again."""
    ledger = Ledger(ledger_path(run, index))
    ledger.forget(ledger.done("overlay"))


def _shape(source: Source) -> tuple[object, ...]:
    """What the target's disks were made for."""
    return source.name, [disk.size for disk in source.disks]
