"""Files of a host, read by a program of ours that its Python runs: see `helper_program`.

Several of them run there, each over a connection of its own if there are so many. What one was
asked and did not answer before it ended, another is asked.
"""

from __future__ import annotations

import errno
import itertools
import logging
import posixpath
import threading
import time
from collections.abc import Iterator, Sequence

from v2v.cancel import Cancel
from v2v.errors import SourceError, V2VError
from v2v.extents import Extent, merge
from v2v.inputs._ssh import file_errors as wrong
from v2v.inputs._ssh import helper_program as far
from v2v.inputs._ssh.connection import Connection, ProgramRefused
from v2v.inputs._ssh.helper_far import COMMAND, PYTHONS, Far, NoHello, OddAnswer, Opened, Request
from v2v.inputs._ssh.pace import Pace
from v2v.inputs._ssh.place import SshPlace
from v2v.texts import clean
from v2v.types import KiB, MiB
from v2v.vmdk.store import MAX_ENTRIES, Entry, Kind

log = logging.getLogger(__name__)

REQUEST_SIZE = 4 * MiB
PARALLEL = 16  # reads of callers
PART = 512 * KiB  # of one request: a read is spread over the programs
ATTEMPTS = 5  # to have a request answered, each by another run of the program
STARTS = 4  # of a program that ends before it answers anything
SILENT_SECONDS = 60.0  # without a word, though it was asked: the program is given up
LOOK_SECONDS = 5.0  # how often that is looked at
CLOSE_SECONDS = 2.0  # for threads that end; one that waits for a connection ends with that
PAUSE_SECONDS = 0.25  # before it is started again; longer every time

KINDS = {far.FILE: Kind.FILE, far.FOLDER: Kind.FOLDER, far.LINK: Kind.LINK}


class HelperStore:
    """See v2v.vmdk.store.Store. NoHello or ProgramRefused if the host runs no Python for us."""

    request_size = REQUEST_SIZE
    parallel = PARALLEL

    def __init__(self, connection: Connection, cancel: Cancel, *, programs: int) -> None:
        self._connection, self._cancel = connection, cancel
        self._python = ""
        self._fars: list[Far] = []  # that can be asked
        self._starting: set[Far] = set()
        self._waiting: list[Request] = []  # for a program
        self._lock = threading.Lock()  # of the three above, and of the pace
        self._end: BaseException | None = None  # why nothing can be read any more
        self._closed = threading.Event()
        self._pace = Pace()
        self._numbers = itertools.count(1)
        self._threads = [threading.Thread(target=self._lane, daemon=True) for _ in range(programs)]
        self._lanes = programs
        first = self._first()
        self._threads[0] = threading.Thread(target=self._lane, args=(first,), daemon=True)
        for thread in self._threads:
            thread.start()

    @property
    def place(self) -> SshPlace:
        return self._connection.place

    def open(self, path: str) -> HelperFile:
        """As the protocol; `source-unreadable` for what is neither a file nor a disk."""
        name = wrong.name_of(self.place, path)
        opened = Opened(next(self._numbers), _bytes(path))
        request = Request(far.OPEN, opened.found + opened.path, opened)
        body = self._told(name, request).body
        if len(body) != far.FOUND.size:
            raise wrong.odd_answer(name, "an odd answer to opening it")
        opened.found = body
        return HelperFile(self, name, opened)

    def real_path(self, path: str) -> str:
        name = wrong.name_of(self.place, path)
        found = self._told(name, Request(far.REAL_PATH, _bytes(path))).body
        if not found.startswith(b"/") or b"\0" in found or len(found) > far.MAX_TEXT:
            raise wrong.odd_answer(name, "no such path")
        return _text(found)

    def entries(self, path: str) -> Sequence[Entry]:
        name = wrong.name_of(self.place, path)
        request = self._told(name, Request(far.ENTRIES, _bytes(path)))
        return list(itertools.islice(_entries(request, name), MAX_ENTRIES))

    def close(self) -> None:
        """Ends the programs there."""
        self.stop(ConnectionError("the store is closed"))
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
        for request in waiting:
            request.fail(self._end)
        for one in fars:
            one.channel.close()

    def read_into(self, file: Opened, name: str, offset: int, buffer: memoryview) -> None:
        requests = []
        for at in range(0, len(buffer), PART):
            part = buffer[at : at + PART]
            requests.append(Request(far.READ, b"", file, offset + at, len(part), part))
            self._ask(requests[-1])
        for request in requests:  # all of them: nobody may write to the buffer after the return
            self._wait(request)
        for request in requests:
            if request.error is not None:
                raise self._clear(request.error, name, request)

    def extents(self, file: Opened, name: str, offset: int, length: int) -> Iterator[Extent]:
        end = offset + length
        while offset < end:
            request = Request(far.EXTENTS, b"", file, offset, end - offset)
            for one in _extents(self._told(name, request), name):
                yield one
                offset = one.end

    def _told(self, name: str, request: Request) -> Request:
        self._ask(request)
        self._wait(request)
        if request.error is not None:
            raise self._clear(request.error, name, request)
        return request

    def _clear(self, error: BaseException, name: str, request: Request) -> BaseException:
        if isinstance(error, OSError) and not isinstance(error, ConnectionError):
            return _clear(error, name, request)
        return error

    def _ask(self, request: Request) -> None:
        """Of the program that has least to do; when there is none, the next one that begins."""
        while True:
            with self._lock:
                if self._end is not None:
                    return request.fail(self._end)
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
        request.done.set()

    def _wait(self, request: Request) -> None:
        while not request.done.wait(LOOK_SECONDS):
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
        """A program that runs there. Raises NoHello, ConnectionError, ProgramRefused."""
        channel = self._connection.open(COMMAND.format(python=self._python))
        channel.timeout(SILENT_SECONDS)
        one = Far(channel, self._answered)
        with self._lock:
            self._starting.add(one)
        try:
            if self._closed.is_set():
                raise ConnectionError("the store is closed")
            one.begin()
        except BaseException:
            channel.close()
            raise
        finally:
            with self._lock:
                self._starting.discard(one)
        channel.timeout(None)
        return one

    def _lane(self, one: Far | None = None) -> None:
        """Keeps a program running, started anew when it has ended."""
        why: BaseException = ConnectionError("the store is closed")
        failures = 0
        while not self._closed.wait(PAUSE_SECONDS * (2**failures - 1)) and failures < STARTS:
            try:
                one = one or self._begun()
                self._serve(one)
            except (ConnectionError, OddAnswer, NoHello) as exc:
                words = one.channel.errors() if one else ""
                answered = one is not None and self._dead(one, exc)
                failures = 0 if answered else failures + 1
                why, one = self._trouble(exc, words), None
            except (ProgramRefused, V2VError) as exc:
                why = exc if isinstance(exc, V2VError) else self._trouble(exc, "")
                break
            except BaseException as exc:  # noqa: BLE001 - the last line of a thread
                self.stop(exc)
                return
        with self._lock:
            self._lanes -= 1
            last = self._lanes == 0
        if last:
            self.stop(why)

    def _serve(self, one: Far) -> None:
        with self._lock:
            if self._end is not None:
                raise ConnectionError("the store is closed")
            self._fars.append(one)
            waiting, self._waiting = self._waiting, []
        for request in waiting:
            self._ask(request)
        one.receive()

    def _dead(self, one: Far, exc: Exception) -> bool:
        """Ask others what it did not answer. Whether it was of any use."""
        with self._lock:
            if one in self._fars:
                self._fars.remove(one)
        left = one.end()
        if not self._closed.is_set():
            log.info("%s: the helper has ended: %s", self.place.shown, exc)
        for request in left:
            self._again(request, exc)
        return one.answers > 0

    def _again(self, request: Request, exc: Exception) -> None:
        with self._lock:
            self._pace.answer(time.monotonic(), 0, 0, packed=not self._pace.packing)
        request.attempts += 1
        if request.attempts >= ATTEMPTS:
            request.fail(self._trouble(exc, ""))
        else:
            self._ask(request)

    def _trouble(self, exc: Exception, words: str) -> SourceError:
        """The connection, or the program there."""
        more = clean(words.strip()[-wrong.MAX_WORDS :])
        return SourceError(
            f"{self.place.shown}: the helper there fails again and again: {clean(str(exc))}"
            + (f"; it says: {more}" if more else ""),
            id="ssh-helper",
            hint="-io ssh-reader=sftp reads without it; `v2v resume` goes on where this ended",
        )


class HelperFile:
    """See v2v.vmdk.store.File."""

    def __init__(self, store: HelperStore, name: str, opened: Opened) -> None:
        self._store, self._opened = store, opened
        self.name = name
        self.size, written, *_ = far.FOUND.unpack(opened.found)
        self.version = wrong.version_of(self.size, written // 10**9)

    def read(self, offset: int, length: int) -> bytes:
        buffer = bytearray(max(0, min(length, self.size - offset)))
        self.read_into(offset, memoryview(buffer))
        return bytes(buffer)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        self._store.read_into(self._opened, self.name, offset, buffer)

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        return merge(self._store.extents(self._opened, self.name, offset, length))


def _clear(error: OSError, name: str, request: Request) -> SourceError:
    """What the system there says, as the user understands it."""
    words = error.strerror or "?"
    if error.errno == errno.ESTALE:
        return wrong.changed(name)
    if error.errno == errno.ENODATA:
        end = request.offset + request.length
        return wrong.wrong_size(name, _size(request), f"it ends before byte {end}")
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return wrong.missing(name)
    if error.errno in (errno.EACCES, errno.EPERM):
        return wrong.unreadable(name)
    if error.errno in (errno.EBUSY, errno.EAGAIN, errno.ETXTBSY):
        return wrong.locked(name)
    if request.operation == far.OPEN and error.errno in (errno.EISDIR, errno.EINVAL):
        return wrong.not_a_file(name)
    return wrong.read_failed(name, request.offset, words)


def _size(request: Request) -> int:
    return int(far.FOUND.unpack(request.file.found)[0]) if request.file else 0


def _extents(request: Request, name: str) -> Iterator[Extent]:
    offset, end = request.offset, request.offset + request.length
    if len(request.body) % far.EXTENT.size or not request.body:
        raise wrong.odd_answer(name, "no extents")
    for length, zero in far.EXTENT.iter_unpack(request.body):
        if not 0 < length <= end - offset:
            raise wrong.odd_answer(name, "extents that are not in the file")
        yield Extent(offset, length, bool(zero))
        offset += length


def _entries(request: Request, name: str) -> Iterator[Entry]:
    body, at = request.body, 0
    while at < len(body):
        if len(body) - at < far.ENTRY.size:
            raise wrong.odd_answer(name, "half a name")
        kind, size, used, length = far.ENTRY.unpack_from(body, at)
        start = at + far.ENTRY.size
        word, at = body[start : start + length], start + length
        if word in (b"", b".", b"..") or b"/" in word or b"\0" in word or at > len(body):
            raise wrong.odd_answer(name, "what is no name")
        yield Entry(_text(word), KINDS.get(kind, Kind.OTHER), size, used)


def _bytes(path: str) -> bytes:
    return posixpath.join("/", path).encode("utf-8", "surrogateescape")


def _text(path: bytes) -> str:
    return path.decode("utf-8", "surrogateescape")
