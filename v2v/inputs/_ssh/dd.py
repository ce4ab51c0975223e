"""Files of a host that has a shell and dd, and neither SFTP nor Python.

A command's text is always the same but for numbers: the name of a file goes to its stdin. Names
with newlines are refused therefore.
"""

from __future__ import annotations

import re
import stat
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import TypeVar

from v2v.errors import SourceError
from v2v.extents import Extent
from v2v.inputs._ssh import file_errors as wrong
from v2v.inputs._ssh.connection import Connection, Done, ProgramRefused
from v2v.inputs._ssh.program import Program
from v2v.types import KiB, MiB
from v2v.vmdk.store import MAX_ENTRIES, Entry, Kind

T = TypeVar("T")

BLOCK = 4 * MiB  # what one dd reads at least; three round trips go by before its first byte
UNIT = 256 * KiB  # dd's own requests
PARALLEL = 8  # three round trips each
CACHED = 4  # blocks of a file: small reads come side by side
ATTEMPTS = 4  # to read the same range
ANSWER_SECONDS = 60.0  # without a byte

# {} are numbers. No quote ' may be within.
START = "LC_ALL=C; export LC_ALL; IFS= read -r f || exit 9; "
READ = START + '{}exec dd if="$f" bs={} skip={} count={}'
STATE = 'stat -L -c "%s %Y" "$f" || echo gone; '  # a line before the data
LOOK = (
    START
    + 'if stat -L -c %s / >/dev/null 2>&1; then stat -L -c "%f %s %Y" "$f"; else ls -lnLd "$f"; fi '
    + '|| exit 1; [ -f "$f" ] || exit 2; exec dd if="$f" of=/dev/null bs=512 count=1'
)
REAL_PATH = START + '[ -e "$f" ] || exit 1; exec readlink -f "$f"'
FOLDER = (
    START
    + 'ls "$f/" >/dev/null || exit 1; cd "$f" || exit 1; if stat -L -c %s / >/dev/null 2>&1; '
    + 'then printf "%s\\0" ./* ./.[!.]* ./..?* | xargs -0 stat -c "%f %s %b %B %n" 2>/dev/null; '
    + "else ls -lnA; fi; exit 0"
)
BY_STAT = re.compile(rb"([0-9a-f]+) (\d+) (-?\d+)")
BY_LS = re.compile(rb"([-dlbcps])[-\w]{9}\S* +\d+ +\S+ +\S+ +(\d+) +\S+ +\S+ +\S+ (.+)")
ENTRY = re.compile(rb"([0-9a-f]+) (\d+) (\d+) (\d+) \./([^/]+)")
TYPES = {stat.S_IFREG: Kind.FILE, stat.S_IFDIR: Kind.FOLDER, stat.S_IFLNK: Kind.LINK}
LETTERS = {b"-": Kind.FILE, b"d": Kind.FOLDER, b"l": Kind.LINK}


class DdStore:
    """See v2v.vmdk.store.ListingStore."""

    request_size = BLOCK
    parallel = PARALLEL

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.room = threading.BoundedSemaphore(PARALLEL)

    def open(self, path: str) -> DdFile:
        name, done = self._asked(LOOK, path)
        if done.status == 2:
            raise wrong.not_a_file(name)
        if done.status != 0:
            raise wrong.from_words(name, done.stderr)
        if found := BY_STAT.match(done.stdout):
            return DdFile(self, path, name, int(found[2]), int(found[3]))
        if found := BY_LS.match(done.stdout):
            return DdFile(self, path, name, int(found[2]), None)
        raise wrong.odd_answer(name, done.stdout.decode(errors="replace"))

    def real_path(self, path: str) -> str:
        name, done = self._asked(REAL_PATH, path)
        if done.status == 1:
            raise wrong.missing(name)
        found = done.stdout.removesuffix(b"\n")
        if done.status != 0 or not found.startswith(b"/") or b"\n" in found:
            raise wrong.odd_answer(name, done.stderr or "no such path")
        return found.decode("utf-8", "surrogateescape")

    def entries(self, path: str) -> Sequence[Entry]:
        name, done = self._asked(FOLDER, path)
        if done.status != 0:
            raise wrong.from_words(name, done.stderr)
        lines = done.stdout.split(b"\n")
        return list(filter(None, map(_entry, lines)))[:MAX_ENTRIES]

    def _asked(self, script: str, path: str) -> tuple[str, Done]:
        """The path's name for messages, and what the host says of it."""
        name = wrong.name_of(self.connection.place, path)
        with self.room:
            done = _again(
                self, name, 0, lambda: self.connection.run(command(script), input=line(name, path))
            )
        return name, done


class DdFile:
    """See v2v.vmdk.store.File."""

    def __init__(self, store: DdStore, path: str, name: str, size: int, mtime: int | None) -> None:
        self._store, self._input = store, line(name, path)
        self.name, self.size = name, size
        self.version = "" if mtime is None else wrong.version_of(size, mtime)
        self._state = b"" if mtime is None else f"{size} {mtime}\n".encode()  # as STATE shows it
        self._blocks: OrderedDict[int, bytes] = OrderedDict()  # by number, the oldest first
        self._lock = threading.Lock()

    def read(self, offset: int, length: int) -> bytes:
        buffer = bytearray(max(0, min(length, self.size - offset)))
        self.read_into(offset, memoryview(buffer))
        return bytes(buffer)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        if offset + len(buffer) > self.size:
            raise wrong.read_failed(self.name, self.size, "the file ends there")
        while buffer:
            number, at = divmod(offset, BLOCK)
            whole = len(buffer) // BLOCK * BLOCK
            if at == 0 and offset + len(buffer) == self.size:
                whole = len(buffer)
            if at == 0 and whole:
                self._fetch(offset, buffer[:whole])
                count = whole
            else:
                part = memoryview(self._block(number))[at : at + len(buffer)]
                count = len(part)
                buffer[:count] = part
            offset, buffer = offset + count, buffer[count:]

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        yield Extent(offset, length)

    def _block(self, number: int) -> bytes:
        with self._lock:
            if number not in self._blocks:
                start = number * BLOCK
                block = bytearray(min(BLOCK, self.size - start))
                self._fetch(start, memoryview(block))
                self._blocks[number] = bytes(block)
                while len(self._blocks) > CACHED:
                    self._blocks.popitem(last=False)
            self._blocks.move_to_end(number)
            return self._blocks[number]

    def _fetch(self, offset: int, buffer: memoryview) -> None:
        """From the beginning of a block to the end of one, or of the file."""
        units = -(-len(buffer) // UNIT)
        before = STATE if self._state else ""
        script = command(READ.format(before, UNIT, offset // UNIT, units))
        with self._store.room:
            _again(self._store, self.name, offset, lambda: self._read(script, offset, buffer))

    def _read(self, script: str, offset: int, buffer: memoryview) -> None:
        """Again if dd ends early: who knows what ended it."""
        program = self._store.connection.open(script)
        try:
            program.timeout(ANSWER_SECONDS)
            with suppress(ConnectionError):  # it may have ended, and said why
                program.send(self._input)
            self._check_state(program)
            count = _filled(program, buffer)
            if count == len(buffer):
                if offset + count == self.size and program.receive_into(memoryview(bytearray(1))):
                    raise wrong.wrong_size(self.name, self.size, "there are more")
                return
            status = program.status(ANSWER_SECONDS)
            if status == 0:
                raise wrong.wrong_size(self.name, self.size, f"it ends at byte {offset + count}")
            raise ConnectionError(_words(program.errors()) or "dd ended early")
        finally:
            program.close()

    def _check_state(self, program: Program) -> None:
        """Each dd opens the file by its name: another one may have it now."""
        found = bytearray(len(self._state))
        count = _filled(program, memoryview(found))
        if found != self._state and (b"\n" in found or count == len(found)):
            raise wrong.changed(self.name)


def command(script: str) -> str:
    """For whatever shell the user has there."""
    return f"exec sh -c '{script}'"


def line(name: str, path: str) -> bytes:
    """A path as a script reads it."""
    if "\n" in path or "\0" in path:
        raise SourceError(
            f"{name}: a name with a newline, which dd cannot be told",
            id="source-name",
            hint="rename it; or read it with -io ssh-reader=sftp",
        )
    return path.encode("utf-8", "surrogateescape") + b"\n"


def _again(store: DdStore, name: str, offset: int, act: Callable[[], T]) -> T:
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return act()
        except ConnectionError as exc:
            store.connection.check()
            if attempt == ATTEMPTS:
                raise wrong.read_failed(name, offset, str(exc)) from exc
        except ProgramRefused as exc:
            raise wrong.read_failed(name, offset, f"no programs are started there: {exc}") from exc
    raise AssertionError


def _filled(program: Program, buffer: memoryview) -> int:
    count = 0
    while count < len(buffer) and (got := program.receive_into(buffer[count:])):
        count += got
    return count


def _words(errors: str) -> str:
    """What dd complains of, without its statistics."""
    return next((one for one in errors.splitlines() if one.startswith("dd:")), "")


def _entry(text: bytes) -> Entry | None:
    """From a line of stat or ls."""
    if found := ENTRY.fullmatch(text):
        mode, size, blocks, unit = int(found[1], 16), *map(int, found.group(2, 3, 4))
        kind = TYPES.get(stat.S_IFMT(mode), Kind.OTHER)
        return Entry(_text(found[5]), kind, size, blocks * unit if kind == Kind.FILE else None)
    if found := BY_LS.fullmatch(text):
        name = found[3].partition(b" -> ")[0] if found[1] == b"l" else found[3]
        return Entry(_text(name), LETTERS.get(found[1], Kind.OTHER), int(found[2]))
    return None


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")
