"""What the copy tells of itself, with a clock that only the test moves."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from v2v.copy.progress import KNOWN_SECONDS, TELL_SECONDS, Progress, Standing
from v2v.types import MiB


class Watched:
    """A Progress, its clock, and what it told."""

    def __init__(self) -> None:
        self.now = 50.0
        self.seen: list[Standing] = []
        self.times: list[float] = []
        self.progress = Progress(self._tell, clock=lambda: self.now)

    def _tell(self, standing: Standing) -> None:
        self.seen.append(standing)
        self.times.append(self.now)

    @property
    def last(self) -> Standing:
        return self.seen[-1]


@pytest.fixture
def watched() -> Watched:
    return Watched()


def steady(watched: Watched, disks: list[int], seconds: float, rate: float) -> None:
    """Each disk copies at this rate for so long."""
    for _ in range(round(seconds * 20)):
        watched.now += 0.05
        for disk in disks:
            watched.progress.meter(disk).add(round(rate / 20))


def test_the_first_and_the_last_of_a_phase_are_told(watched: Watched) -> None:
    meter = watched.progress.meter(3)
    meter.begin("copy", 100)
    for _ in range(100):
        meter.add(1)  # the clock stands still
    meter.finish()
    assert [(s.disk, s.phase, s.done, s.total) for s in watched.seen] == [
        (3, "copy", 0, 100),
        (3, "copy", 100, 100),
    ]


def test_a_phase_with_nothing_to_do_is_told_once(watched: Watched) -> None:
    meter = watched.progress.meter(0)
    meter.begin("copy", 100, done=100)
    meter.finish()
    assert [(s.done, s.total, s.eta) for s in watched.seen] == [(100, 100, 0.0)]


def test_it_is_told_four_times_a_second_over_all_disks(watched: Watched) -> None:
    for disk in range(8):
        watched.progress.meter(disk).begin("copy", 10**9)
    before = len(watched.seen)
    steady(watched, list(range(8)), 10, 1 * MiB)
    assert 20 <= len(watched.seen) - before <= 10 / TELL_SECONDS


def test_every_disk_is_told_of(watched: Watched) -> None:
    """Disks that move at the same moments take turns."""
    for disk in range(3):
        watched.progress.meter(disk).begin("copy", 10**9)
    before = len(watched.seen)
    steady(watched, [0, 1, 2], 30, 1 * MiB)
    told = [s.disk for s in watched.seen[before:]]
    assert all(told.count(disk) > len(told) // 4 for disk in range(3))


def test_the_rate_is_that_of_the_last_seconds(watched: Watched) -> None:
    watched.progress.meter(0).begin("copy", 10**10)
    steady(watched, [0], 20, 100 * MiB)
    assert watched.last.rate == pytest.approx(100 * MiB, rel=0.05)
    steady(watched, [0], 6, 20 * MiB)
    assert watched.last.rate == pytest.approx(20 * MiB, rel=0.1)


def test_the_time_left_is_not_told_before_it_is_known(watched: Watched) -> None:
    watched.progress.meter(0).begin("copy", 1000 * MiB)
    steady(watched, [0], KNOWN_SECONDS * 0.9, 100 * MiB)
    assert {s.eta for s in watched.seen} == {None}
    steady(watched, [0], 4, 100 * MiB)
    assert watched.last.eta == pytest.approx(
        (1000 * MiB - watched.last.done) / (100 * MiB), rel=0.1
    )


def test_what_was_done_before_does_not_count_for_the_rate(watched: Watched) -> None:
    watched.progress.meter(0).begin("copy", 2000 * MiB, done=1500 * MiB)
    assert (watched.last.done, watched.last.rate) == (1500 * MiB, 0.0)
    steady(watched, [0], 2, 10 * MiB)
    assert watched.last.rate == pytest.approx(10 * MiB, rel=0.1)
    assert watched.last.all_rate == pytest.approx(10 * MiB, rel=0.1)


def test_a_pause_shows_in_the_rate(watched: Watched) -> None:
    watched.progress.meter(0).begin("copy", 10**10)
    steady(watched, [0], 10, 100 * MiB)
    watched.now += 60
    watched.progress.meter(0).add(MiB)
    assert watched.last.rate < 2 * MiB


def test_all_disks_are_added_up(watched: Watched) -> None:
    watched.progress.meter(0).begin("copy", 1000 * MiB)
    watched.progress.meter(1).begin("copy", 3000 * MiB, done=500 * MiB)
    steady(watched, [0, 1], 5, 20 * MiB)
    told = watched.last
    assert told.all_total == 4000 * MiB
    assert told.all_done == pytest.approx(700 * MiB, rel=0.02)
    assert told.all_rate == pytest.approx(40 * MiB, rel=0.1)
    assert told.all_eta == pytest.approx((4000 * MiB - told.all_done) / told.all_rate)


def test_a_pass_that_follows_goes_on_with_the_disk(watched: Watched) -> None:
    meter = watched.progress.meter(0)
    meter.begin("copy", 100)
    meter.add(100)
    meter.finish()
    watched.progress.meter(0).begin("copy", 150, done=100)
    assert (watched.last.done, watched.last.total) == (100, 150)
    assert (watched.last.all_done, watched.last.all_total) == (100, 150)


def test_a_rate_does_not_span_the_time_between_two_passes(watched: Watched) -> None:
    """Guests are converted between them, for minutes."""
    meter = watched.progress.meter(0)
    meter.begin("copy", 100 * MiB)
    steady(watched, [0], 1, 100 * MiB)
    meter.finish()
    watched.now += 300
    meter.begin("copy", 1000 * MiB, done=100 * MiB)
    steady(watched, [0], 2, 100 * MiB)
    assert watched.last.rate == pytest.approx(100 * MiB, rel=0.1)
    assert watched.last.all_rate == pytest.approx(100 * MiB, rel=0.1)


def test_verifying_counts_for_its_disk_only(watched: Watched) -> None:
    first, second = watched.progress.meter(0), watched.progress.meter(1)
    first.begin("copy", 100)
    second.begin("copy", 1000)
    first.add(100)
    first.finish()
    first.begin("verify", 70)
    assert (watched.last.phase, watched.last.done, watched.last.total) == ("verify", 0, 70)
    watched.now += 1
    first.add(50)
    assert (watched.last.done, watched.last.all_done, watched.last.all_total) == (50, 100, 1100)


def test_the_end_is_complete_and_more_than_was_expected_raises_the_total(watched: Watched) -> None:
    meter = watched.progress.meter(0)
    meter.begin("copy", 100)
    meter.add(130)
    meter.finish()
    assert (watched.last.done, watched.last.total) == (130, 130)
    meter.begin("copy", 100)
    meter.add(60)  # the rest turned out to be done
    meter.finish()
    assert (watched.last.done, watched.last.total) == (100, 100)


def test_threads_lose_nothing(watched: Watched) -> None:
    meters = [watched.progress.meter(disk) for disk in range(2)]
    for meter in meters:
        meter.begin("copy", 10**9)

    def add(number: int) -> None:
        for _ in range(2000):
            meters[number % 2].add(1)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(8)))
    assert [meter.done for meter in meters] == [8000, 8000]
