"""What runs on the other host to read its files: its Python gets it on stdin; nothing is installed.

It opens files for reading, writes none, and ends when its stdin does. Runs on Python 3.5 and newer
with nothing but the standard library: keep to the syntax and the calls of 3.5. Its constants are
imported by `helper`, the other end.

Both directions carry frames. A request is REQUEST, and where it names a path a text of `length`
bytes; an answer is REPLY and what belongs to it:

    OPEN       FOUND                        the text: FOUND (zeroes: any file), then the path
    READ       `count` PIECEs, their bytes  together they are the range that was asked for
    EXTENTS    `count` EXTENTs              from `offset` on; it may end before the range does
    REAL_PATH  the path
    ENTRIES    `count` ENTRYs and names     of what is in a folder, `length` at most
    any        ERRNO, then words            where the answer's kind is FAILED

Answers come in any order. A file's number is chosen by who asks, and READ may follow OPEN at once.
"""

import errno
import os
import queue
import stat
import struct
import sys
import threading

if False:  # for the checker of types only: the module typing takes long to load
    from collections.abc import Callable, Sequence

    Result = tuple[int, Sequence["bytes | memoryview"]]  # how many, and what is sent

try:
    import zlib
except ImportError:  # then nothing is compressed
    zlib = None  # type: ignore[assignment]

HELLO = b"\n\0v2v-helper-1\n"  # sent first; what a login prints before it is not ours
REQUEST = struct.Struct(">IBBIQI")  # number, operation, compress?, file, offset, length
REPLY = struct.Struct(">IBII")  # number, kind, count, bytes that follow
PIECE = struct.Struct(">BII")  # kind, bytes of the file, bytes that follow for it
EXTENT = struct.Struct(">QB")  # bytes, whether they are a hole
FOUND = struct.Struct(">QQQQ")  # size, time of the last write in ns, device, inode
ENTRY = struct.Struct(">BQQH")  # kind, size, bytes it takes up, bytes of its name
ERRNO = struct.Struct(">I")

OPEN, READ, EXTENTS, REAL_PATH, ENTRIES = range(5)  # operations
DONE, FAILED = range(2)  # kinds of answers
ZERO, RAW, PACKED = range(3)  # kinds of pieces
FILE, FOLDER, LINK, OTHER = range(4)  # kinds of entries

MAX_READ = 4 << 20  # bytes of one READ
MAX_TEXT = 8192  # bytes of a path, or of an error's words
MAX_EXTENTS = 4096  # of one answer
MAX_ENTRIES = 10000  # of a folder
BLOCK = 32 << 10  # bytes that are looked at together for being zero
WORKERS = 4  # threads that read; what they hold is all the memory that is needed here
WAITING = 4096  # requests read ahead of them

ZEROES = bytes(BLOCK)
MASK = (1 << 64) - 1
SMALLER = 0.9  # what compression must make of the first block of a piece, or it is sent as it is
SEEK_DATA, SEEK_HOLE = getattr(os, "SEEK_DATA", None), getattr(os, "SEEK_HOLE", None)


class Files:
    """What is open, by number. One that could not be opened holds the error."""

    def __init__(self) -> None:
        self._files = {}  # type: dict[int, object]

    def open(self, number: int, text: bytes) -> bytes:
        try:
            self._files[number], found = opened(text)
        except OSError as exc:
            self._files[number] = exc
            raise
        return found

    def fd(self, number: int) -> int:
        found = self._files.get(number)
        if isinstance(found, int):
            return found
        raise found if isinstance(found, OSError) else OSError(errno.EBADF, "no such file number")


def opened(text: bytes) -> "tuple[int, bytes]":
    known, path = FOUND.unpack_from(text), text[FOUND.size :]
    check_kind(os.stat(path))  # noqa: PTH116 - a FIFO or a tape is not even opened
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        status = os.fstat(fd)
        check_kind(status)
        size = os.lseek(fd, 0, os.SEEK_END)
        found = tuple(
            one & MASK for one in (size, status.st_mtime_ns, status.st_dev, status.st_ino)
        )
        if any(known) and known != found:
            raise OSError(errno.ESTALE, "it is not what it was")
    except OSError:
        os.close(fd)
        raise
    return fd, FOUND.pack(*found)


def check_kind(status: os.stat_result) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise OSError(errno.EISDIR, "it is a folder")
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISBLK(status.st_mode)):
        raise OSError(errno.EINVAL, "it is neither a file nor a disk")


def read(fd: int, offset: int, length: int) -> bytes:
    data = os.pread(fd, length, offset)
    while len(data) < length:
        more = os.pread(fd, length - len(data), offset + len(data))
        if not more:
            raise OSError(errno.ENODATA, "the file ends at byte " + str(offset + len(data)))
        data += more
    return data


def runs(data: bytes) -> "list[tuple[bool, int, int]]":
    """(whether it is zero, start, end), alternating."""
    found = []  # type: list[tuple[bool, int, int]]
    for start in range(0, len(data), BLOCK):
        end = min(start + BLOCK, len(data))
        zeroes = ZEROES if end - start == BLOCK else ZEROES[: end - start]
        zero = data.startswith(zeroes, start)
        if found and found[-1][0] == zero:
            found[-1] = (zero, found[-1][1], end)
        else:
            found.append((zero, start, end))
    return found


def packed(view: memoryview) -> "bytes | None":
    """Compressed, if that is worth it."""
    if zlib is None or len(zlib.compress(view[:BLOCK], 1)) > SMALLER * len(view[:BLOCK]):
        return None
    data = zlib.compress(view, 1)
    return data if len(data) < len(view) else None


def pieces(data: bytes, compress: int) -> "Result":
    """How many, and what is sent: their table, and their bytes."""
    table, payloads = [], []  # type: list[bytes], list[bytes | memoryview]
    for zero, start, end in runs(data):
        if zero:
            table.append(PIECE.pack(ZERO, end - start, 0))
            continue
        view = memoryview(data)[start:end]
        small = packed(view) if compress else None
        table.append(PIECE.pack(RAW if small is None else PACKED, end - start, len(small or view)))
        payloads.append(small or view)
    return len(table), [b"".join(table), *payloads]


def extents(fd: int, offset: int, length: int) -> "list[bytes]":
    end, found = offset + length, []  # type: int, list[bytes]
    while offset < end and len(found) < MAX_EXTENTS:
        stop, hole = next_extent(fd, offset, end)
        found.append(EXTENT.pack(stop - offset, hole))
        offset = stop
    return found


def next_extent(fd: int, offset: int, end: int) -> "tuple[int, bool]":
    """Where it ends, and whether it is a hole; all is data where nobody can tell."""
    if SEEK_DATA is None or SEEK_HOLE is None:
        return end, False
    try:
        data = os.lseek(fd, offset, SEEK_DATA)
        if data > offset:
            return min(data, end), True
        hole = os.lseek(fd, offset, SEEK_HOLE)
    except OSError as exc:
        # Nothing but a hole up to the end; what was cut off meanwhile is none.
        return end, exc.errno == errno.ENXIO and os.lseek(fd, 0, os.SEEK_END) >= end
    return (min(hole, end), False) if hole > offset else (end, False)


def entries(path: bytes) -> "list[bytes]":
    found = []  # type: list[bytes]
    for entry in os.scandir(path):
        if len(found) == MAX_ENTRIES:
            break
        try:
            status = entry.stat(follow_symlinks=False)
        except OSError:  # it is gone
            continue
        used = getattr(status, "st_blocks", 0) * 512
        head = ENTRY.pack(kind_of(status.st_mode), status.st_size & MASK, used, len(entry.name))
        found.append(head + entry.name)
    return found


def kind_of(mode: int) -> int:
    kinds = {stat.S_IFREG: FILE, stat.S_IFDIR: FOLDER, stat.S_IFLNK: LINK}
    return kinds.get(stat.S_IFMT(mode), OTHER)


class Answers:
    """What goes to stdout, a whole answer at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def send(
        self, number: int, kind: int, count: int, parts: "Sequence[bytes | memoryview]"
    ) -> None:
        head = REPLY.pack(number, kind, count, sum(map(len, parts)))
        with self._lock:
            for part in (head, *parts):
                write(part)

    def fail(self, number: int, exc: Exception) -> None:
        code = exc.errno if isinstance(exc, OSError) else None
        words = exc.strerror if isinstance(exc, OSError) else None
        text = (words or repr(exc)).encode("utf-8", "replace")[:MAX_TEXT]
        self.send(number, FAILED, 0, [ERRNO.pack(code or 0), text])


def write(data: "bytes | memoryview") -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]


class Program:
    def __init__(self) -> None:
        self.files = Files()
        self.answers = Answers()
        self.waiting = queue.Queue(WAITING)  # type: queue.Queue[tuple[int, int, int, int, int, int, bytes]]

    def run(self) -> None:
        for _ in range(WORKERS):
            threading.Thread(target=self.work, daemon=True).start()
        write(HELLO)
        while True:
            number, operation, compress, file, offset, length = REQUEST.unpack(
                exactly(REQUEST.size)
            )
            text = b"" if operation in (READ, EXTENTS) else exactly(min(length, MAX_TEXT))
            if operation == OPEN:  # before the reads that follow it
                self.answer(number, lambda: (0, [self.files.open(file, text)]))  # noqa: B023
            else:
                self.waiting.put((number, operation, compress, file, offset, length, text))

    def work(self) -> None:
        try:
            while True:
                asked = self.waiting.get()
                self.answer(asked[0], lambda: self.result(*asked[1:]))  # noqa: B023
        except BaseException:  # noqa: BLE001 - nobody listens any more
            os._exit(1)

    def answer(self, number: int, act: "Callable[[], Result]") -> None:
        try:
            count, parts = act()
        except Exception as exc:  # noqa: BLE001 - the other end is told
            self.answers.fail(number, exc)
        else:
            self.answers.send(number, DONE, count, parts)

    def result(
        self, operation: int, compress: int, file: int, offset: int, length: int, text: bytes
    ) -> "Result":
        if operation == READ:
            return pieces(read(self.files.fd(file), offset, min(length, MAX_READ)), compress)
        if operation == EXTENTS:
            found = extents(self.files.fd(file), offset, length)
            return len(found), found
        if operation == REAL_PATH:
            return 0, [os.path.realpath(text)]
        if operation == ENTRIES:
            found = entries(text)
            return len(found), found
        raise ValueError("no such operation")


def exactly(length: int) -> bytes:
    """From stdin; its end is the end of the program, whatever its threads are doing."""
    data = sys.stdin.buffer.read(length)
    if len(data) < length:
        os._exit(0)
    return data


def more_files() -> None:
    """As many open files as this host lets us have: a disk may be in thousands of parts."""
    try:
        import resource

        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    except Exception:  # noqa: BLE001, S110 - then it is as many as there are
        pass


if __name__ == "__main__":
    more_files()
    Program().run()
