"""A limit on bytes per second, with a clock that only the test moves."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from v2v.copy.bandwidth import BURST_SECONDS, LOOK_SECONDS, Bandwidth, parse_rate
from v2v.errors import UsageError
from v2v.types import GiB, KiB, MiB

RATE = 10 * MiB


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("100", 100),
        ("64K", 64 * KiB),
        ("50M", 50 * MiB),
        ("1g", GiB),
        (" 5M\n", 5 * MiB),
        ("none", None),
        ("None", None),
        ("0", None),
        ("0M", None),
    ],
)
def test_rates(text: str, rate: int | None) -> None:
    assert parse_rate(text) == rate


@pytest.mark.parametrize(
    "text", ["", "fast", "-1", "1.5M", "10T", "10MB", "5 M", "M", "1e6", "٣", "9" * 30]
)
def test_what_is_no_rate_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is not a rate") as caught:
        parse_rate(text)
    assert caught.value.id == "option-value"
    assert caught.value.hint


def test_without_a_limit_nobody_waits(clock: Clock) -> None:
    bandwidth = Bandwidth(clock=clock)
    assert [bandwidth.take(GiB) for _ in range(10)] == [0.0] * 10


def copied(bandwidth: Bandwidth, clock: Clock, count: int, length: int) -> float:
    """The seconds that it takes until all was asked for."""
    began = clock.now
    for _ in range(count):
        clock.sleep(bandwidth.take(length))
    return clock.now - began


def test_the_limit_is_kept(clock: Clock) -> None:
    bandwidth = Bandwidth(RATE, clock=clock)
    seconds = copied(bandwidth, clock, 1001, MiB)
    assert seconds == pytest.approx(100.0, abs=BURST_SECONDS + 1e-6)


def test_bookings_of_several_threads_lie_one_after_the_other(clock: Clock) -> None:
    bandwidth = Bandwidth(RATE, clock=clock)
    with ThreadPoolExecutor(8) as pool:
        waits = sorted(pool.map(bandwidth.take, [MiB] * 103))
    assert waits[:3] == [0.0, 0.0, pytest.approx(0.0)]
    for number, wait in enumerate(waits[3:], 1):
        assert wait == pytest.approx(number * 0.1)


def test_a_request_larger_than_a_burst_waits_for_nothing_but_what_came_before(
    clock: Clock,
) -> None:
    bandwidth = Bandwidth(RATE, clock=clock)
    assert bandwidth.take(100 * MiB) == 0.0
    assert bandwidth.take(MiB) == pytest.approx(10.0 - BURST_SECONDS)


def test_idle_time_is_made_up_for_by_a_short_burst_only(clock: Clock) -> None:
    bandwidth = Bandwidth(RATE, clock=clock)
    bandwidth.take(MiB)
    clock.sleep(3600)
    at_once = 0
    while bandwidth.take(64 * KiB) == 0.0:
        at_once += 64 * KiB
    assert at_once <= BURST_SECONDS * RATE + 64 * KiB


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 5), st.integers(1, 4 * MiB)), min_size=1, max_size=50),
)
def test_no_stretch_of_time_has_more_than_the_limit_and_a_burst(
    requests: list[tuple[float, int]],
) -> None:
    clock = Clock()
    bandwidth = Bandwidth(RATE, clock=clock)
    asked: list[tuple[float, int]] = []
    for pause, length in requests:
        clock.sleep(pause)
        clock.sleep(bandwidth.take(length))
        asked.append((clock.now, length))
    for first in range(len(asked)):
        total = 0
        for at, length in asked[first:]:
            allowed = RATE * (at - asked[first][0] + BURST_SECONDS)
            assert total <= allowed + 1, "all that was asked for before"
            total += length


def waits_for(clock: Clock) -> Callable[[float], None]:
    def wait(seconds: float) -> None:
        assert 0 < seconds < 1
        clock.sleep(seconds)

    return wait


def test_a_pause_waits_for_its_turn(clock: Clock) -> None:
    bandwidth = Bandwidth(RATE, clock=clock)
    began = clock.now
    for _ in range(103):
        bandwidth.pause(MiB, waits_for(clock))
    assert clock.now - began == pytest.approx(10.0)


@pytest.mark.parametrize("limit", [None, 100 * MiB])
def test_who_waits_goes_on_when_the_limit_changes(clock: Clock, limit: int | None) -> None:
    bandwidth = Bandwidth(KiB, clock=clock)
    bandwidth.take(GiB)  # 12 days
    slept = []

    def wait(seconds: float) -> None:
        slept.append(seconds)
        bandwidth.limit = limit if len(slept) == 3 else KiB  # the same: no change

    bandwidth.pause(MiB, wait)
    assert len(slept) == 3


def test_a_higher_limit_holds_at_once(clock: Clock) -> None:
    """What was booked ahead takes as long as it does at the new limit."""
    bandwidth = Bandwidth(MiB, clock=clock)
    for _ in range(8):
        bandwidth.take(32 * MiB)
    assert bandwidth.take(MiB) > 250
    bandwidth.limit = 100 * MiB
    assert bandwidth.take(MiB) < 2.6
    assert copied(bandwidth, clock, 1000, MiB) < 13


def test_a_lower_limit_holds_at_once(clock: Clock) -> None:
    bandwidth = Bandwidth(100 * MiB, clock=clock)
    copied(bandwidth, clock, 100, MiB)
    bandwidth.limit = MiB
    assert copied(bandwidth, clock, 10, MiB) == pytest.approx(10.0, abs=BURST_SECONDS)


def test_no_limit_holds_at_once_and_a_new_one_begins_afresh(clock: Clock) -> None:
    bandwidth = Bandwidth(KiB, clock=clock)
    bandwidth.take(GiB)
    bandwidth.limit = None
    assert bandwidth.take(GiB) == 0.0
    bandwidth.limit = RATE
    assert bandwidth.take(MiB) == 0.0
    assert bandwidth.take(MiB) == pytest.approx(0.1)


# The file -----------------------------------------------------------------------------------------


def test_a_file_that_appears_changes_and_goes_sets_the_limit(clock: Clock, tmp_path: Path) -> None:
    path = tmp_path / "bandwidth"
    bandwidth = Bandwidth(RATE, path=path, clock=clock)
    assert bandwidth.limit == RATE
    seen = []
    for text in ("50M\n", "1K", "none", "2M"):
        path.write_text(text)
        clock.sleep(LOOK_SECONDS)
        bandwidth.take(1)
        seen.append(bandwidth.limit)
    assert seen == [50 * MiB, KiB, None, 2 * MiB]
    path.unlink()
    clock.sleep(LOOK_SECONDS)
    assert bandwidth.limit == 2 * MiB


def test_a_file_that_is_there_already_counts(clock: Clock, tmp_path: Path) -> None:
    path = tmp_path / "bandwidth"
    path.write_text("3M")
    assert Bandwidth(RATE, path=path, clock=clock).limit == 3 * MiB


def test_the_file_is_looked_at_at_most_once_a_second(clock: Clock, tmp_path: Path) -> None:
    path = tmp_path / "bandwidth"
    bandwidth = Bandwidth(path=path, clock=clock)
    bandwidth.take(1)
    path.write_text("3M")
    clock.sleep(LOOK_SECONDS * 0.9)
    assert bandwidth.limit is None
    clock.sleep(LOOK_SECONDS * 0.1)
    assert bandwidth.limit == 3 * MiB


def test_who_waits_notices_the_file(clock: Clock, tmp_path: Path) -> None:
    path = tmp_path / "bandwidth"
    bandwidth = Bandwidth(KiB, path=path, clock=clock)
    bandwidth.take(GiB)
    path.write_text("none")
    began = clock.now
    bandwidth.pause(MiB, waits_for(clock))
    assert clock.now - began < 2 * LOOK_SECONDS


def test_what_the_file_says_does_not_undo_a_limit_that_was_set_later(
    clock: Clock, tmp_path: Path
) -> None:
    path = tmp_path / "bandwidth"
    path.write_text("3M")
    bandwidth = Bandwidth(path=path, clock=clock)
    assert bandwidth.limit == 3 * MiB
    bandwidth.limit = RATE
    clock.sleep(LOOK_SECONDS)
    assert bandwidth.limit == RATE


@pytest.mark.parametrize("content", [b"fast", b"\xff\xfe\0", b"50M" + b"x" * 100_000, b"-3"])
def test_nonsense_in_the_file_is_ignored_and_logged_once(
    clock: Clock, tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    path = tmp_path / "bandwidth"
    path.write_bytes(content)
    bandwidth = Bandwidth(RATE, path=path, clock=clock)
    with caplog.at_level(logging.WARNING):
        for _ in range(5):
            clock.sleep(LOOK_SECONDS)
            bandwidth.take(1)
    assert bandwidth.limit == RATE
    assert len(caplog.records) == 1
    assert str(path) in caplog.text


@pytest.mark.parametrize("kind", ["empty", "folder"])
def test_a_file_without_text_says_nothing(
    clock: Clock, tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    path = tmp_path / "bandwidth"
    path.mkdir() if kind == "folder" else path.touch()
    bandwidth = Bandwidth(RATE, path=path, clock=clock)
    assert bandwidth.limit == RATE
    assert not caplog.records
