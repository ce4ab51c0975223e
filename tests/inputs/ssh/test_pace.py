"""Whether data is compressed on its way, decided by what arrives."""

from __future__ import annotations

import pytest

from v2v.inputs._ssh.pace import FAST, PERIOD_SECONDS, Pace
from v2v.types import KiB, MiB

REQUEST = 512 * KiB


def simulate(pace: Pace, seconds: float, link: float, ratio: float, packer: float) -> float:
    """Read for so long over a link of so many bytes/s; how many bytes/s arrived.

    `packer`: bytes/s that a processor compresses. Four requests are always under way, and
    compression and the link work at the same time.
    """
    now = total = 0.0
    asked = []
    for _ in range(4):
        pace.ask(now)
        asked.append(pace.packing)
    while now < seconds:
        packed = asked.pop(0)
        sent = REQUEST / ratio if packed else REQUEST
        now += max(sent / link, REQUEST / packer if packed else 0.0)
        total += REQUEST
        pace.answer(now, REQUEST, int(sent), packed=packed)
        pace.ask(now)
        asked.append(pace.packing)
    for packed in asked:
        pace.answer(now, 0, 0, packed=packed)
    return total / now


@pytest.mark.parametrize(
    ("link", "ratio", "packer", "packing"),
    [
        (12.5e6, 3.0, 80e6, True),  # 100 Mbit/s, a text
        (12.5e6, 1.0, 80e6, False),  # random bytes
        (12.5e6, 1.1, 80e6, False),  # hardly worth it
        (110e6, 3.0, 80e6, False),  # one processor is slower than the link
        (110e6, 3.0, 300e6, True),  # several are faster
        (600e6, 3.0, 80e6, False),
        (1e6, 2.0, 80e6, True),
    ],
)
def test_it_goes_on_with_what_is_faster(
    link: float, ratio: float, packer: float, packing: bool
) -> None:
    pace = Pace()
    rate = simulate(pace, 300, link, ratio, packer)
    best = max(link, min(link * ratio, packer)) if packing else link
    assert rate > 0.93 * best
    # in the middle of a trial it is the other
    assert pace.packing != packing if pace._trial else pace.packing == packing


def test_a_fast_link_is_never_tried() -> None:
    pace = Pace()
    assert simulate(pace, 10, 2 * FAST, 10.0, 80e6) == pytest.approx(2 * FAST)


def test_it_follows_what_changes() -> None:
    pace = Pace()
    simulate(pace, 30, 12.5e6, 3.0, 80e6)
    assert pace.packing
    simulate(pace, 200, 500e6, 3.0, 80e6)
    assert pace.packing == pace._trial


def test_one_measurement_is_not_shorter_than_it_should_be() -> None:
    pace = Pace()
    simulate(pace, 0.9 * PERIOD_SECONDS, 50 * MiB, 3.0, 1e9)
    assert not pace.packing


def test_zeroes_and_pauses_do_not_count() -> None:
    pace = Pace()
    now = 0.0
    for _ in range(1000):
        pace.ask(now)
        now += 0.01
        pace.answer(now, 0, 0, packed=False)
        now += 100.0  # nobody waits
    assert not pace.packing
    assert pace._busy == pytest.approx(9.99)
