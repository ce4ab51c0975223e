"""Files of a host over SFTP, which every SSH server offers: sessions that read at once."""

from __future__ import annotations

import stat
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from v2v.errors import SourceError
from v2v.extents import Extent
from v2v.inputs._ssh import file_errors as wrong
from v2v.inputs._ssh.connection import Connection, ProgramRefused
from v2v.inputs._ssh.sftp_session import (
    Attrs,
    Code,
    EndOfFile,
    OddAnswer,
    Refused,
    ServerEnded,
    Session,
)
from v2v.types import MiB
from v2v.vmdk.store import MAX_ENTRIES, Entry, Kind

T = TypeVar("T")

REQUEST_SIZE = 4 * MiB
PARALLEL = 4  # sessions
ATTEMPTS = 4  # to read the same range, each with a session of its own
ANSWER_SECONDS = 60.0  # without a byte, though something was asked for: take another session
MAX_HANDLES = 64  # open files of one session
KINDS = {stat.S_IFREG: Kind.FILE, stat.S_IFDIR: Kind.FOLDER, stat.S_IFLNK: Kind.LINK}


class SftpStore:
    """See v2v.vmdk.store.ListingStore. ProgramRefused if the host offers no SFTP."""

    request_size = REQUEST_SIZE
    parallel = PARALLEL

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._free: list[Session] = []
        self._all: set[Session] = set()
        self._lock = threading.Lock()
        self._room = threading.Semaphore(PARALLEL)
        try:
            self._free.append(self._new())
        except (OddAnswer, ServerEnded) as exc:
            raise ProgramRefused(str(exc)) from exc

    def open(self, path: str) -> SftpFile:
        """As the protocol; `source-size` if the file is not as large as the host says."""
        name = wrong.name_of(self._connection.place, path)
        return SftpFile(self, path, name, self._checked(name, path))

    def real_path(self, path: str) -> str:
        found = self._told(path, lambda session: session.real_path(_bytes(path)))
        if not found.startswith(b"/") or b"\0" in found:
            raise wrong.odd_answer(wrong.name_of(self._connection.place, path), "no such path")
        return _text(found)

    def entries(self, path: str) -> Sequence[Entry]:
        found = self._told(path, lambda session: session.folder(_bytes(path), MAX_ENTRIES))
        return [
            Entry(_text(name), _kind(attrs), attrs.size or 0)
            for name, attrs in found
            if name not in (b"", b".", b"..") and not {0, ord("/")} & set(name)
        ]

    def close(self) -> None:
        with self._lock:
            for session in self._all:
                session.close()

    def using(self, name: str, offset: int, act: Callable[[Session], T]) -> T:
        """What `act` gives, with a session of its own; again with another one if that is lost."""
        with self._room:
            for attempt in range(1, ATTEMPTS + 1):
                try:
                    session = self._take()
                    return self._used(session, act)
                except ConnectionError as exc:
                    self._connection.check()
                    self._drop_free()
                    if attempt == ATTEMPTS:
                        raise wrong.read_failed(name, offset, str(exc)) from exc
                except OddAnswer as exc:
                    raise wrong.odd_answer(name, str(exc)) from exc
                except ProgramRefused as exc:
                    if not self._all:
                        raise wrong.read_failed(name, offset, f"no SFTP any more: {exc}") from exc
                    self._room.acquire()  # the host lets fewer run: this one is never given back
        raise AssertionError

    def _used(self, session: Session, act: Callable[[Session], T]) -> T:
        try:
            result = act(session)
        except (Refused, SourceError):
            if session.idle:
                self._give_back(session)
            else:  # other reads are under way
                self._drop(session)
            raise
        except BaseException:
            self._drop(session)
            raise
        self._give_back(session)
        return result

    def _told(self, path: str, act: Callable[[Session], T]) -> T:
        name = wrong.name_of(self._connection.place, path)
        try:
            return self.using(name, 0, act)
        except Refused as exc:
            raise _error(name, exc) from exc

    def _checked(self, name: str, path: str) -> Attrs:
        """What the file is, opened in one session: it must be a file of the size that is told."""

        def look(session: Session) -> Attrs:
            attrs = session.stat(_bytes(path))
            if attrs.size is None or (attrs.mode is not None and not stat.S_ISREG(attrs.mode)):
                raise wrong.not_a_file(name)
            with _opened(session, path, attrs) as handle:
                try:
                    session.read_into(handle, attrs.size, memoryview(bytearray(1)))
                except EndOfFile:
                    return attrs
                raise wrong.wrong_size(name, attrs.size, "there are more")

        return self._told(path, look)

    def _take(self) -> Session:
        with self._lock:
            if self._free:
                return self._free.pop()
        return self._new()

    def _new(self) -> Session:
        program = self._connection.subsystem("sftp")
        try:
            program.timeout(ANSWER_SECONDS)
            session = Session(program)
        except BaseException:
            program.close()
            raise
        with self._lock:
            self._all.add(session)
        return session

    def _give_back(self, session: Session) -> None:
        with self._lock:
            self._free.append(session)

    def _drop_free(self) -> None:
        """A connection that broke took others with it; which ones would show one after another."""
        with self._lock:
            free, self._free = self._free, []
        for session in free:
            self._drop(session)

    def _drop(self, session: Session) -> None:
        with self._lock:
            self._all.discard(session)
        session.close()


class SftpFile:
    """See v2v.vmdk.store.File."""

    def __init__(self, store: SftpStore, path: str, name: str, attrs: Attrs) -> None:
        self._store, self._path, self._attrs = store, path, attrs
        self.name = name
        self.size = attrs.size or 0
        self.version = "" if attrs.mtime is None else wrong.version_of(self.size, attrs.mtime)

    def read(self, offset: int, length: int) -> bytes:
        buffer = bytearray(max(0, min(length, self.size - offset)))
        self.read_into(offset, memoryview(buffer))
        return bytes(buffer)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        for at in range(0, len(buffer), REQUEST_SIZE):
            self._read_part(offset + at, buffer[at : at + REQUEST_SIZE])

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        yield Extent(offset, length)

    def _read_part(self, offset: int, buffer: memoryview) -> None:
        def read(session: Session) -> None:
            session.read_into(self._handle(session), offset, buffer)

        try:
            self._store.using(self.name, offset, read)
        except EndOfFile as exc:
            raise wrong.wrong_size(
                self.name, self.size, f"it ends before byte {offset + len(buffer)}"
            ) from exc
        except Refused as exc:
            raise wrong.read_failed(self.name, offset, exc.words) from exc

    def _handle(self, session: Session) -> bytes:
        """Of this file in a session. The file must be the one that it was."""
        known = session.handles.get((self._path, self._attrs))
        if known is not None:
            return known
        with _opened(session, self._path, self._attrs) as handle:
            attrs = session.stat(_bytes(self._path))
            if (attrs.size, attrs.mtime) != (self._attrs.size, self._attrs.mtime):
                raise wrong.changed(self.name)
        return handle


@contextmanager
def _opened(session: Session, path: str, attrs: Attrs) -> Iterator[bytes]:
    """A handle, which the session keeps if the block finds nothing wrong with it."""
    handle = session.open(_bytes(path))
    try:
        yield handle
    except (Refused, SourceError):
        if session.idle:
            session.close_handle(handle)
        raise
    if (former := session.handles.pop((path, attrs), None)) is not None:
        session.close_handle(former)
    while len(session.handles) >= MAX_HANDLES:  # a server, too, has so many
        session.close_handle(session.handles.pop(next(iter(session.handles))))
    session.handles[path, attrs] = handle


def _error(name: str, exc: Refused) -> SourceError:
    if exc.code == Code.NO_SUCH_FILE:
        return wrong.missing(name)
    if exc.code == Code.PERMISSION_DENIED:
        return wrong.unreadable(name)
    if exc.code == Code.FAILURE:  # all that SFTP has for what is busy
        return wrong.locked(name)
    return wrong.read_failed(name, 0, exc.words)


def _kind(attrs: Attrs) -> Kind:
    return KINDS.get(stat.S_IFMT(attrs.mode or 0), Kind.OTHER)


def _bytes(path: str) -> bytes:
    return path.encode("utf-8", "surrogateescape")


def _text(path: bytes) -> str:
    return path.decode("utf-8", "surrogateescape")
