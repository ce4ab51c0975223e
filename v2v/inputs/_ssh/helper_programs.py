"""Our programs on the other host: kept running, asked, and asked again.

Several run there, each over a connection of its own if there are so many; one, as long as there is
little to read. What one was asked and did not answer before it ended, another is asked.
"""

from __future__ import annotations

import logging
import threading
import time

from v2v.errors import SourceError, V2VError
from v2v.inputs._ssh import file_errors as wrong
from v2v.inputs._ssh.connection import Connection, ProgramRefused
from v2v.inputs._ssh.helper_far import COMMAND, PYTHONS, Far, NoHello, OddAnswer, Request
from v2v.inputs._ssh.pace import Pace
from v2v.inputs._ssh.place import SshPlace
from v2v.inputs._ssh.program import Program
from v2v.texts import clean
from v2v.types import MiB

log = logging.getLogger(__name__)

UNDER_WAY = 16  # requests, of all programs together: 100 ms at 160 MiB/s
ENOUGH = MiB  # under way for each program; when it is more, another one begins
ATTEMPTS = 5  # to have a request answered, each by another run of the program
STARTS = 4  # of a program that ends before it answers anything
SILENT_SECONDS = 60.0  # without a word, though it was asked: the program is given up
LOOK_SECONDS = 5.0  # how often that is looked at
CLOSE_SECONDS = 2.0  # for threads that end; one that waits for a connection ends with that
PAUSE_SECONDS = 0.25  # before it is started again; longer every time


class Programs:
    """NoHello or ProgramRefused if the host runs no Python for us."""

    def __init__(self, connection: Connection, *, count: int) -> None:
        self._connection = connection
        self._python = ""
        self._fars: list[Far] = []  # that can be asked
        self._starting: set[Far] = set()
        self._waiting: list[Request] = []  # for a program
        self._active = count  # lanes that do not wait for work
        self._lock = threading.Lock()  # of the four above, and of the pace
        self._work = threading.Condition(self._lock)  # for lanes without a program
        self._end: BaseException | None = None  # why nothing can be read any more
        self._closed = threading.Event()
        self._room = threading.BoundedSemaphore(UNDER_WAY)
        self._pace = Pace()
        self._threads = [threading.Thread(target=self._lane, daemon=True) for _ in range(count)]
        first = self._first()
        self._threads[0] = threading.Thread(target=self._lane, args=(first,), daemon=True)
        for thread in self._threads:
            thread.start()

    @property
    def place(self) -> SshPlace:
        return self._connection.place

    def close(self) -> None:
        """End them."""
        self.stop(ConnectionError("nothing is read any more"))
        deadline = time.monotonic() + CLOSE_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def stop(self, why: BaseException) -> None:
        """What waits ends with `why`; nothing is read any more."""
        self._closed.set()
        with self._lock:
            self._end = self._end or why
            waiting, self._waiting = self._waiting, []
            fars = [*self._fars, *self._starting]
            self._work.notify_all()
        for request in waiting:
            self._finish(request, self._end)
        for one in fars:
            one.channel.close()

    def ask(self, request: Request) -> None:
        """Waits while enough is under way: what is urgent must not queue behind all the rest."""
        while not self._room.acquire(timeout=LOOK_SECONDS):
            self._look()
        self._post(request)

    def _post(self, request: Request) -> None:
        """To the program that has least to do; when there is none, the next one that begins."""
        while True:
            with self._lock:
                if self._end is not None:
                    return self._finish(request, self._end)
                self._work.notify_all()
                if not self._fars:
                    return self._waiting.append(request)
                one = min(self._fars, key=lambda one: one.load)
                number = one.take(request)
                if number is None:  # it has just ended
                    self._fars.remove(one)
                    continue
                request.packed = self._pace.packing
                self._pace.ask(time.monotonic())
            return one.send(number, request)

    def _answered(self, request: Request, nonzero: int, sent: int) -> None:
        with self._lock:
            self._pace.answer(time.monotonic(), nonzero, sent, packed=request.packed)
        self._finish(request, request.error)

    def _finish(self, request: Request, error: BaseException | None) -> None:
        request.error = error
        request.done.set()
        self._room.release()

    def wait(self, request: Request) -> None:
        while not request.done.wait(LOOK_SECONDS):
            self._look()

    def _look(self) -> None:
        """End programs that do not answer: others are asked then."""
        with self._lock:
            silent = [one for one in self._fars if one.overdue > SILENT_SECONDS]
        for one in silent:
            log.warning("%s: no answer from the helper, it is ended", self.place.shown)
            one.channel.close()

    def _first(self) -> Far:
        """Finds out what Python is called there."""
        why = []
        for python in PYTHONS:
            self._python = python
            try:
                return self._begun()
            except (NoHello, ConnectionError) as exc:
                log.info("%s: %s: %s", self.place.shown, python, clean(str(exc)))
                why.append(f"{python}: {exc}")
        raise NoHello("; ".join(why))

    def _begun(self) -> Far:
        """A program that runs there. Raises NoHello, ConnectionError, ProgramRefused; SourceError
        if the host cannot be reached any more."""
        channel = self._channel()
        channel.timeout(SILENT_SECONDS)
        one = Far(channel, self._answered)
        with self._lock:
            self._starting.add(one)
        try:
            if self._closed.is_set():
                raise ConnectionError("nothing is read any more")
            one.begin()
        except BaseException:
            channel.close()
            raise
        finally:
            with self._lock:
                self._starting.discard(one)
        channel.timeout(None)
        return one

    def _channel(self) -> Program:
        """The connection has its own patience with a network that is gone."""
        try:
            return self._connection.open(COMMAND.format(python=self._python))
        except ConnectionError as exc:
            raise SourceError(
                f"{self.place.shown}: the connection was lost: {exc}",
                id="ssh-unreachable",
                hint="`v2v resume` goes on when the host can be reached again",
            ) from exc

    def _lane(self, one: Far | None = None) -> None:
        """Keeps a program running, started (anew when it has ended) when there is work for it: a
        disk may wait for hours for its turn, while a host ends those that say nothing."""
        why: BaseException = ConnectionError("nothing is read any more")
        failures = 0
        if one is None:
            self._wait_for_work()
        while not self._closed.wait(PAUSE_SECONDS * (2**failures - 1)) and failures < STARTS:
            try:
                one = one or self._begun()
                self._serve(one)
            except (ConnectionError, OddAnswer, NoHello) as exc:
                why = self._trouble(exc, one.channel.errors() if one else "")
                answered = one is not None and self._dead(one, why)
                failures, one = 0 if answered else failures + 1, None
                self._wait_for_work()
            except (ProgramRefused, V2VError) as exc:
                why = exc if isinstance(exc, V2VError) else self._trouble(exc, "")
                break
            except BaseException as exc:  # noqa: BLE001 - the last line of a thread
                self.stop(exc)
                if one is not None:
                    self._dead(one, exc)
                return
        with self._lock:
            self._active -= 1
            last = self._active == 0
        if not self._closed.is_set():
            log.warning("%s: one helper less: %s", self.place.shown, why)
        if last:
            self.stop(why)

    def _wait_for_work(self) -> None:
        with self._work:
            self._active -= 1
            self._work.wait_for(self._is_work)
            self._active += 1

    def _is_work(self) -> bool:
        """For one lane more than there are."""
        if self._closed.is_set():
            return True
        if not self._active:
            return bool(self._waiting)
        asked = sum(one.load for one in self._fars) + sum(one.data for one in self._waiting)
        return asked > ENOUGH * self._active

    def _serve(self, one: Far) -> None:
        with self._lock:
            if self._end is not None:
                raise ConnectionError("nothing is read any more")
            self._fars.append(one)
            waiting, self._waiting = self._waiting, []
        for request in waiting:
            self._post(request)
        one.receive()

    def _dead(self, one: Far, why: BaseException) -> bool:
        """Ask others what it did not answer. Whether it was of any use, or had nothing to do."""
        with self._lock:
            if one in self._fars:
                self._fars.remove(one)
        left = one.end()
        if not self._closed.is_set():
            log.info("%s: the helper has ended: %s", self.place.shown, why)
        for request in left:
            self._again(request, why)
        idle = not left and time.monotonic() - one.heard > LOOK_SECONDS
        return one.answers > 0 or idle

    def _again(self, request: Request, why: BaseException) -> None:
        with self._lock:
            self._pace.answer(time.monotonic(), 0, 0, packed=request.packed)
        request.attempts += 1
        if request.attempts >= ATTEMPTS:
            self._finish(request, why)
        else:
            self._post(request)

    def _trouble(self, exc: Exception, words: str) -> SourceError:
        """The connection, or the program there."""
        more = clean(words.strip()[-wrong.MAX_WORDS :])
        return SourceError(
            f"{self.place.shown}: the helper there fails again and again: {clean(str(exc))}"
            + (f"; it says: {more}" if more else ""),
            id="ssh-helper",
            hint="-io ssh-reader=sftp reads without it; `v2v resume` goes on where this ended",
        )
