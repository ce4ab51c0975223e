"""Connections to a target's server, whatever it speaks, for several threads."""

from __future__ import annotations

import errno
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, Protocol, TypeVar

from v2v.cancel import Cancel
from v2v.copy.sinks._base import SinkLost

MORE_SECONDS = 2.0  # for the handshake of a connection that the server may not want

log = logging.getLogger(__name__)


class Closable(Protocol):
    def close(self) -> None:
        """Say goodbye, without waiting for an answer."""

    def hang_up(self) -> None:
        """End what is under way, from any thread."""


C = TypeVar("C", bound=Closable)


class Pool(Generic[C]):
    """Connections to one server. When one is lost, all are, until `reopen`.

    The first one is opened before anything is written, and flushes. So a flush that succeeds was
    answered by the server that took all writes: had it been started anew in between, the first
    connection would be dead, though others might be new.
    """

    def __init__(self, connect: Callable[[float | None], C], limit: int, cancel: Cancel) -> None:
        """At most `limit` connections to write with; the first is kept for flushes if over 1."""
        self._connect = connect
        self._limit = limit
        self._cancel = cancel
        self._changed = threading.Condition()
        self._all: list[C] = []
        self._first: list[C] = []
        self._free: list[C] = []
        self._lost: SinkLost | None = None
        self.reopen()

    def reopen(self) -> None:
        self.hang_up()
        with self._changed:
            first = self._connect(None)
            self._all, self._first, self._lost = [first], [first], None
            self._free = [] if self._limit > 1 else self._first

    def hang_up(self) -> None:
        """Break all connections, those in use too. Nothing works until `reopen`."""
        with self._changed:
            self._lost = self._lost or SinkLost(errno.ENOTCONN, "the connection was given up")
            for connection in self._all:
                connection.hang_up()
            self._all.clear()
            self._changed.notify_all()

    def close(self) -> None:
        with self._changed:
            for connection in self._all:
                connection.close()
            self._all.clear()
        self.hang_up()

    @contextmanager
    def any(self) -> Iterator[C]:
        """A connection for one thread's commands."""
        with self._held(self._take) as connection:
            yield connection

    @contextmanager
    def first(self) -> Iterator[C]:
        with self._held(self._take_first) as connection:
            yield connection

    @contextmanager
    def _held(self, take: Callable[[], C]) -> Iterator[C]:
        connection = take()
        try:
            yield connection
        except SinkLost as exc:
            if (cause := self._lose(connection, exc)) is exc:
                raise
            raise SinkLost(*cause.args) from exc
        except OSError:
            self._give_back(connection)
            raise
        except BaseException:  # cancelled, for one: a command is still under way
            self._lose(connection, SinkLost(errno.ECANCELED, "the connection was given up"))
            raise
        self._give_back(connection)

    def _take(self) -> C:
        with self._changed:
            while True:
                self._check()
                if self._free:
                    return self._free.pop()
                if self._free is not self._first and len(self._all) <= self._limit:
                    if connection := self._open():
                        return connection
                    continue
                self._changed.wait()

    def _take_first(self) -> C:
        with self._changed:
            while True:
                self._check()
                if self._first:
                    return self._first.pop()
                self._changed.wait()

    def _check(self) -> None:
        if self._lost is not None:
            self._cancel.check()
            raise SinkLost(*self._lost.args)

    def _open(self) -> C | None:
        """One more; None where the server takes no more, which then is the limit.

        A qemu-nbd lets whoever comes after the last of its --shared clients wait for ever.
        """
        try:
            connection = self._connect(MORE_SECONDS)
        except SinkLost as exc:
            self._cancel.check()
            self._limit = max(1, len(self._all) - 1)
            if len(self._all) == 1:
                self._free = self._first  # it does everything
            log.info("no more than %d connections: %s", len(self._all), str(exc))
            return None
        self._all.append(connection)
        return connection

    def _give_back(self, connection: C) -> None:
        with self._changed:
            if connection in self._all:  # else it was hung up meanwhile
                free = self._first if connection is self._all[0] else self._free
                free.append(connection)
                self._changed.notify_all()

    def _lose(self, connection: C, error: SinkLost) -> SinkLost:
        """Gives why: that of the first one that was lost, for which the others were hung up."""
        with self._changed:
            if connection in self._all:
                self._lost = error
                self.hang_up()
            return self._lost or error
