"""Connections of one server that are lost together."""

from __future__ import annotations

import errno
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from v2v.cancel import Cancel
from v2v.copy.sinks import Pool, SinkLost

LONG = 30.0  # seconds: a test that needs them has failed


class Line:
    """A connection that is used until it is hung up."""

    def __init__(self, seconds: float | None) -> None:
        self._gone = threading.Event()

    def use(self) -> None:
        assert self._gone.wait(LONG)
        raise SinkLost(errno.ENOTCONN, "hung up")

    def close(self) -> None:
        pass

    def hang_up(self) -> None:
        self._gone.set()


def test_all_are_told_why_the_first_was_lost() -> None:
    pool = Pool(Line, 2, Cancel())
    begun = threading.Event()

    def wait() -> None:
        with pool.any() as line:
            begun.set()
            line.use()

    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(wait)
        with pytest.raises(SinkLost, match="it is full"), pool.any():
            assert begun.wait(LONG)
            raise SinkLost(errno.EIO, "it is full")
        with pytest.raises(SinkLost, match="it is full"):
            waiting.result(LONG)
    with pytest.raises(SinkLost, match="it is full"), pool.any():
        pass


def test_a_pool_that_is_hung_up_says_so() -> None:
    pool = Pool(Line, 2, Cancel())
    with pytest.raises(SinkLost, match="given up"), pool.any() as line:
        pool.hang_up()
        line.use()


def test_what_was_lost_is_forgotten_once_there_are_new_ones() -> None:
    pool = Pool(Line, 1, Cancel())
    with pytest.raises(SinkLost), pool.any():
        raise SinkLost(errno.EIO, "it is full")
    pool.reopen()
    with pytest.raises(SinkLost, match="it failed"), pool.any():
        raise SinkLost(errno.EIO, "it failed")
