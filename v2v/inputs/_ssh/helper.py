"""Files of a host, read by a program of ours that its Python runs: see `helper_program`."""

from __future__ import annotations

import errno
import itertools
import posixpath
from collections.abc import Iterator, Sequence

from v2v.errors import SourceError
from v2v.extents import Extent, merge
from v2v.inputs._ssh import file_errors as wrong
from v2v.inputs._ssh import helper_program as far
from v2v.inputs._ssh.connection import Connection
from v2v.inputs._ssh.helper_far import Opened, Request
from v2v.inputs._ssh.helper_programs import Programs
from v2v.types import MiB
from v2v.vmdk.store import MAX_ENTRIES, Entry, Kind

# nbdkit takes new memory for each request that is larger: 1.4 times as fast as with 4 MiB.
REQUEST_SIZE = MiB
PARALLEL = 16  # reads of callers
PART = MiB  # of one request: larger reads are spread over the programs

KINDS = {far.FILE: Kind.FILE, far.FOLDER: Kind.FOLDER, far.LINK: Kind.LINK}


class HelperStore:
    """See v2v.vmdk.store. NoHello or ProgramRefused if the host runs no Python for us."""

    request_size = REQUEST_SIZE
    parallel = PARALLEL

    def __init__(self, connection: Connection, *, programs: int) -> None:
        self._place = connection.place
        self._programs = Programs(connection, count=programs)
        self._numbers = itertools.count(1)
        self.close, self.stop = self._programs.close, self._programs.stop

    def open(self, path: str) -> HelperFile:
        """As the protocol; `source-unreadable` for what is neither a file nor a disk."""
        name = wrong.name_of(self._place, path)
        opened = Opened(next(self._numbers), _bytes(path))
        request = Request(far.OPEN, opened.found + opened.path, opened)
        body = self._told(name, request).body
        if len(body) != far.FOUND.size:
            raise wrong.odd_answer(name, "an odd answer to opening it")
        opened.found = body
        return HelperFile(self, name, opened)

    def real_path(self, path: str) -> str:
        name = wrong.name_of(self._place, path)
        found = self._told(name, Request(far.REAL_PATH, _bytes(path))).body
        if not found.startswith(b"/") or b"\0" in found or len(found) > far.MAX_TEXT:
            raise wrong.odd_answer(name, "no such path")
        return _text(found)

    def entries(self, path: str) -> Sequence[Entry]:
        name = wrong.name_of(self._place, path)
        request = self._told(name, Request(far.ENTRIES, _bytes(path)))
        return list(itertools.islice(_entries(request, name), MAX_ENTRIES))

    def read_into(self, file: Opened, name: str, offset: int, buffer: memoryview) -> None:
        requests = []
        for at in range(0, len(buffer), PART):
            part = buffer[at : at + PART]
            requests.append(Request(far.READ, b"", file, offset + at, len(part), part))
            self._programs.ask(requests[-1])
        for request in requests:  # all of them: nobody may write to the buffer after the return
            self._programs.wait(request)
        for request in requests:
            _check(name, request)

    def extents(self, file: Opened, name: str, offset: int, length: int) -> Iterator[Extent]:
        end = offset + length
        while offset < end:
            request = Request(far.EXTENTS, b"", file, offset, end - offset)
            for one in _extents(self._told(name, request), name):
                yield one
                offset = one.end

    def _told(self, name: str, request: Request) -> Request:
        self._programs.ask(request)
        self._programs.wait(request)
        _check(name, request)
        return request


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


def _check(name: str, request: Request) -> None:
    """Raise what it ended with."""
    if isinstance(request.error, OSError) and not isinstance(request.error, ConnectionError):
        raise _clear(request.error, name, request)
    if request.error is not None:
        raise request.error


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
