"""Copying several disks at a time."""

from __future__ import annotations

import threading

import pytest

from v2v.cancel import Cancel
from v2v.coordinator.copying import all_done
from v2v.errors import Cancelled, CopyError


def test_disks_are_copied_side_by_side() -> None:
    meeting = threading.Barrier(3, timeout=30)

    def action(number: int) -> int:
        meeting.wait()  # breaks unless three are under way at once
        return number * 10

    assert all_done(action, range(3), Cancel(), parallel=3) == [0, 10, 20]


def test_no_more_at_a_time_than_asked_for() -> None:
    lock = threading.Lock()

    def action(number: int) -> bool:
        with_nobody = lock.acquire(blocking=False)
        lock.release()
        return with_nobody

    assert all(all_done(action, range(20), Cancel(), parallel=1))


def test_the_first_error_stops_the_others_and_is_the_one_told() -> None:
    stop = Cancel()
    started = threading.Barrier(2, timeout=30)

    def action(number: int) -> None:
        started.wait()
        if number == 1:
            raise CopyError("disk 2: cannot read", id="copy-read")
        stop.wait(60)

    with pytest.raises(CopyError, match="disk 2"):
        all_done(action, range(2), stop, parallel=2)
    assert stop.cancelled


def test_what_fails_because_all_is_stopped_is_not_told_instead_of_the_cause() -> None:
    stop = Cancel()

    def action(number: int) -> None:
        if number == 1:
            raise CopyError("disk 2: cannot read", id="copy-read")
        with pytest.raises(Cancelled):
            stop.wait(60)
        raise CopyError("disk 1: its connection was closed", id="copy-read")

    with pytest.raises(CopyError, match="disk 2"):
        all_done(action, range(2), stop, parallel=2)


def test_what_has_not_begun_when_one_fails_never_begins() -> None:
    begun = []

    def action(number: int) -> None:
        begun.append(number)
        if number == 0:
            raise CopyError("disk 1: cannot read", id="copy-read")
        stop.wait(60)

    stop = Cancel()
    with pytest.raises(CopyError):
        all_done(action, range(9), stop, parallel=1)
    assert len(begun) <= 2
