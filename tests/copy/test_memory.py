"""One budget of buffers for all disks: bounded, reused, and fair."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from v2v.copy.memory import Memory
from v2v.types import KiB, MiB

LONG = 30.0  # seconds: a test that needs them has failed


def taken(memory: Memory, size: int, owner: object) -> memoryview:
    view = memory.take(size, owner)
    assert view is not None
    return view


def test_buffers_have_the_size_and_can_be_written() -> None:
    view = taken(Memory(1 * MiB), 64 * KiB, 0)
    assert len(view) == 64 * KiB
    view[:3] = b"abc"
    assert bytes(view[:3]) == b"abc"


def test_the_budget_bounds_what_one_owner_gets() -> None:
    memory = Memory(4 * KiB)
    views = [taken(memory, KiB, 0) for _ in range(4)]
    assert memory.take(KiB, 0) is None
    memory.give_back(views.pop())
    assert memory.take(KiB, 0) is not None


def test_a_buffer_that_was_given_back_is_used_again() -> None:
    memory = Memory(4 * KiB)
    first = taken(memory, KiB, 0)
    first[:4] = b"mark"
    memory.give_back(first[10:20])  # a part stands for all of it
    assert bytes(taken(memory, KiB, 0)[:4]) == b"mark"
    assert memory.used == KiB


def test_what_lies_idle_is_counted_and_makes_room_for_another_size() -> None:
    memory = Memory(4 * KiB)
    for view in [taken(memory, KiB, 0) for _ in range(4)]:
        memory.give_back(view)
    assert memory.used == 4 * KiB
    taken(memory, 3 * KiB, 0)
    assert memory.used == 4 * KiB
    taken(memory, KiB, 0)
    assert memory.take(KiB, 0) is None


def test_an_owner_that_holds_nothing_gets_one_above_the_total() -> None:
    memory = Memory(2 * KiB)
    views = [taken(memory, KiB, "A") for _ in range(2)]
    extra = taken(memory, KiB, "B")
    assert memory.take(KiB, "B") is None
    for view in [extra, *views]:
        memory.give_back(view)
    assert memory.used <= 2 * KiB


def test_one_buffer_larger_than_the_total_is_possible() -> None:
    memory = Memory(KiB)
    view = taken(memory, MiB, 0)
    assert memory.take(MiB, 0) is None
    memory.give_back(view)
    assert memory.used == 0


def test_what_is_given_back_twice_is_a_mistake() -> None:
    memory = Memory(KiB)
    view = taken(memory, KiB, 0)
    memory.give_back(view)
    with pytest.raises(KeyError):
        memory.give_back(view)


def test_an_owner_below_its_share_comes_before_one_above() -> None:
    memory = Memory(8 * KiB)
    greedy = [taken(memory, KiB, "A") for _ in range(8)]
    taken(memory, KiB, "B")
    assert memory.take(KiB, "B") is None
    memory.give_back(greedy.pop())
    memory.give_back(greedy.pop())
    assert memory.take(KiB, "A") is None, "it holds 6 of 8, and B waits"
    taken(memory, KiB, "B")
    assert memory.take(KiB, "A") is None, "9 were there, 8 are allowed"


def test_who_no_longer_wants_memory_keeps_nobody_from_it() -> None:
    memory = Memory(8 * KiB)
    greedy = [taken(memory, KiB, "A") for _ in range(8)]
    last = taken(memory, KiB, "B")
    assert memory.take(KiB, "B") is None
    memory.give_back(last)  # B is done
    memory.give_back(greedy.pop())
    taken(memory, KiB, "A")


def test_who_waits_is_woken_by_what_another_disk_gives_back() -> None:
    memory = Memory(2 * KiB)
    mine, other = taken(memory, KiB, "A"), taken(memory, KiB, "B")
    refused, got = threading.Event(), []

    def worker_of_a() -> None:
        while (view := memory.take(KiB, "A")) is None:
            refused.set()
            memory.wait(LONG)
        got.append(view)

    thread = threading.Thread(target=worker_of_a)
    thread.start()
    assert refused.wait(LONG)
    memory.give_back(other)
    thread.join(LONG / 2)  # less than it would wait if nobody woke it
    assert not thread.is_alive()
    assert got
    memory.give_back(mine)


def test_what_is_given_back_between_refusal_and_waiting_is_not_missed() -> None:
    memory = Memory(KiB)
    view = taken(memory, KiB, "A")
    refused, given_back = threading.Event(), threading.Event()

    def waits() -> None:
        assert memory.take(KiB, "A") is None
        refused.set()
        assert given_back.wait(LONG)
        memory.wait(LONG)

    thread = threading.Thread(target=waits)
    thread.start()
    assert refused.wait(LONG)
    memory.give_back(view)
    given_back.set()
    thread.join(LONG / 2)
    assert not thread.is_alive()


def test_what_an_owner_leaves_behind_can_be_reclaimed() -> None:
    memory = Memory(4 * KiB)
    for _ in range(3):
        taken(memory, KiB, "A")
    other = taken(memory, KiB, "B")
    memory.reclaim("A")
    for _ in range(3):
        taken(memory, KiB, "C")
    memory.give_back(other)


@pytest.mark.parametrize("owners", [1, 3])
def test_threads_share_it_and_all_get_their_work_done(owners: int) -> None:
    """Every buffer has one user at a time, the total holds, and nobody starves."""
    memory = Memory(8 * KiB)
    start = threading.Barrier(4 * owners)

    def work(owner: int) -> int:
        start.wait()
        for turn in range(300):
            while (view := memory.take((1 + turn % 2) * KiB, owner)) is None:
                memory.wait(LONG)
            mark = f"{threading.get_ident()} {turn}".encode()
            view[: len(mark)] = mark
            assert memory.used <= 8 * KiB + owners * 2 * KiB
            assert bytes(view[: len(mark)]) == mark
            memory.give_back(view)
        return owner

    with ThreadPoolExecutor(4 * owners) as pool:
        done = list(pool.map(work, [number % owners for number in range(4 * owners)]))
    assert len(done) == 4 * owners
    assert memory.used <= 8 * KiB


steps = st.lists(st.tuples(st.integers(0, 2), st.sampled_from((1, 2, 5)), st.booleans()))


@settings(max_examples=200, deadline=None)
@given(steps)
def test_the_total_holds_but_for_one_buffer_of_each_owner(
    steps: list[tuple[int, int, bool]],
) -> None:
    memory = Memory(10)
    held: dict[int, list[memoryview]] = {0: [], 1: [], 2: []}
    for owner, size, take in steps:
        if take:
            view = memory.take(size, owner)
            assert view is not None or held[owner], "who holds nothing gets one"
            if view is not None:
                held[owner].append(view)
        elif held[owner]:
            memory.give_back(held[owner].pop(0))
        in_use = sum(len(view) for views in held.values() for view in views)
        assert in_use <= memory.used
        assert memory.used <= max(10, in_use)
        assert in_use <= 10 + sum(max(map(len, views)) for views in held.values() if views)
