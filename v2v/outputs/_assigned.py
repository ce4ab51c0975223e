"""Which disk goes where, of places that the user names one by one."""

from __future__ import annotations

import re
from collections.abc import Sequence

from v2v.errors import UsageError

NUMBERED = re.compile(r"(\d{1,9}):(.+)", re.ASCII | re.DOTALL)


def assigned(first: str | None, words: Sequence[str], count: int, *, mode: str) -> list[str]:
    """The place of each of `count` disks: `first` for disk 1, "N:PLACE" for disk N, and the others
    in their order for those that are left."""
    found = {1: first} if first is not None else {}
    unnumbered: list[str] = []
    for word in words:
        if match := NUMBERED.fullmatch(word):
            _take(found, int(match[1]), match[2], count, mode)
        else:
            unnumbered.append(word)
    free = (number for number in range(1, len(unnumbered) + count + 1) if number not in found)
    for number, word in zip(free, unnumbered, strict=False):
        _take(found, number, word, count, mode)
    if len(found) < count:
        missing = next(number for number in range(1, count + 1) if number not in found)
        raise _wrong(f"disk {missing} of {count} has no place", mode)
    return [found[number] for number in sorted(found)]


def _take(found: dict[int, str], number: int, word: str, count: int, mode: str) -> None:
    if number in found:
        raise _wrong(f"disk {number} has two places, {found[number]} and {word}", mode)
    if not 1 <= number <= count:
        raise _wrong(f"{word} is for disk {number}, the VM has {count}", mode)
    found[number] = word


def _wrong(what: str, mode: str) -> UsageError:
    return UsageError(
        f"-o {mode}: {what}",
        id="disk-places",
        hint="-os is for the first disk; then -oo disk=WHERE once for each, in the order of "
        "the disks, or -oo disk=N:WHERE",
    )
