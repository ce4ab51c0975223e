"""Files of a real SSH server's host, read by our program there."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes.tcp_proxy import NO_LIMIT, Wire, tcp_proxy
from tests.inputs.ssh.hosts import lacking, place_of
from tests.sshd import Sshd, _children, sshd
from v2v.cancel import Cancel
from v2v.errors import Cancelled, SourceError
from v2v.extents import Extent
from v2v.inputs._ssh import helper, helper_programs
from v2v.inputs._ssh.choose import CONNECTIONS, open_store
from v2v.inputs._ssh.place import SshPlace, SshReader
from v2v.types import KiB, MiB
from v2v.vmdk.store import File, Kind, Store

SIZE = 40 * MiB + 12345
END_SECONDS = 60.0


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with sshd(tmp_path_factory.mktemp("ssh")) as server:
        yield server


@contextmanager
def opened(place: SshPlace, cancel: Cancel | None = None) -> Iterator[Store]:
    with open_store(place, cancel=cancel or Cancel(), tell=lambda text: None) as store:
        yield store


@contextmanager
def through(host: Sshd, *, rate: float = NO_LIMIT) -> Iterator[tuple[Wire, Store]]:
    with (
        tcp_proxy(host.port, rate=rate) as wire,
        opened(place_of(host, port=wire.port, reader=SshReader.HELPER)) as store,
    ):
        yield wire, store


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data, zeroes that are written, and a hole."""
    path = tmp_path_factory.mktemp("disk") / "disk [1] ä'\"$x.vmdk"
    chance = random.Random(1)
    with path.open("wb") as out:
        while out.tell() < SIZE - 8 * MiB:
            length = chance.choice((1, 1000, 32 * KiB, 100_000, MiB))
            out.write(chance.randbytes(length) if chance.random() < 0.6 else bytes(length))
        out.truncate(SIZE)
    return path


@pytest.fixture(scope="module")
def file(host: Sshd, disk: Path) -> Iterator[File]:
    with opened(place_of(host, reader=SshReader.HELPER)) as store:
        yield store.open(str(disk))


def whole(file: File, step: int = 4 * MiB) -> bytes:
    """Read by many threads."""
    data = bytearray(file.size)
    view = memoryview(data)
    with ThreadPoolExecutor(8) as pool:
        parts = range(0, file.size, step)
        for done in [pool.submit(file.read_into, at, view[at : at + step]) for at in parts]:
            done.result()
    return bytes(data)


def programs(host: Sshd) -> list[int]:
    """Those of ours that run there."""
    return [pid for pid in _children(host.pid) if is_ours(pid)]


def is_ours(pid: int) -> bool:
    """Also when the server there has left it alone."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return b"-IBS" in words and b"python" in words[0]


def wait_until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + END_SECONDS
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, SIZE - 1), st.integers(1, 3 * MiB))
def test_any_range(file: File, disk: Path, offset: int, length: int) -> None:
    with disk.open("rb") as there:
        wanted = os.pread(there.fileno(), length, offset)
    assert file.read(offset, length) == wanted


def test_all_of_it_by_many_threads(file: File, disk: Path) -> None:
    assert file.size == SIZE
    assert whole(file) == disk.read_bytes()
    assert file.read(SIZE, 10) == b""


def test_compressed_data_is_the_same(
    host: Sshd, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(place_of(host, reader=SshReader.HELPER)) as store:
        store._programs._pace.packing = True  # type: ignore[attr-defined]
        assert whole(store.open(str(disk))) == disk.read_bytes()


def test_holes(file: File, disk: Path) -> None:
    found = list(file.extents(MiB, SIZE - MiB))
    assert found[0].offset == MiB
    assert found[-1].end == SIZE
    assert all(a.end == b.offset for a, b in pairwise(found))
    assert found[-1].zero or not any(one.zero for one in found)  # the filesystem may not tell
    with disk.open("rb") as there:
        for one in found:
            if one.zero:
                assert os.pread(there.fileno(), one.length, one.offset) == bytes(one.length)


def test_what_was_cut_off_is_no_hole(host: Sshd, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * MiB)
    with opened(place_of(host, reader=SshReader.HELPER)) as store:
        file = store.open(str(tmp_path / "file"))
        os.truncate(tmp_path / "file", 4096)
        assert not any(one.zero for one in file.extents(0, MiB))


def test_names_and_folders(host: Sshd, tmp_path: Path) -> None:
    (tmp_path / "VM").mkdir()
    (tmp_path / "VM/ä%20[b] \n\udc80'").write_bytes(b"abc")
    (tmp_path / "link").symlink_to("VM")
    with opened(place_of(host, reader=SshReader.HELPER)) as store:
        assert store.real_path(f"{tmp_path}/link/x") == f"{tmp_path}/VM/x"
        (entry,) = store.entries(f"{tmp_path}/link")
        assert (entry.kind, entry.size) == (Kind.FILE, 3)
        assert store.open(f"{tmp_path}/VM/{entry.name}").read(0, 10) == b"abc"
        kinds = {one.name: one.kind for one in store.entries(str(tmp_path))}
        assert kinds == {"VM": Kind.FOLDER, "link": Kind.LINK}


def test_what_cannot_be_opened(host: Sshd, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with opened(place_of(host, reader=SshReader.HELPER)) as store:
        for name, error in (
            ("none", "image-file-missing"),
            ("fifo", "source-unreadable"),
            ("fifo/below", "image-file-missing"),
            (".", "source-unreadable"),
        ):
            with pytest.raises(SourceError, match=str(tmp_path)) as caught:
                store.open(f"{tmp_path}/{name}")
            assert caught.value.id == error
        with pytest.raises(SourceError) as caught:
            store.entries(f"{tmp_path}/none")
        assert caught.value.id == "image-file-missing"


def test_a_user_who_may_not_read() -> None:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="v2v-nobody-")))
        folder.chmod(0o755)  # sshd reads the user's keys as the user
        host = stack.enter_context(sshd(folder / "sshd", user="nobody"))
        store = stack.enter_context(opened(place_of(host, reader=SshReader.HELPER)))
        with pytest.raises(SourceError) as caught:
            store.open("/etc/shadow")
    assert caught.value.id == "source-unreadable"


@pytest.mark.parametrize(
    ("name", "error"), [("EBUSY", "source-locked"), ("EIO", "source-read"), ("EPERM", None)]
)
def test_what_the_system_there_says(name: str, error: str | None) -> None:
    import errno

    found = helper._clear(
        OSError(getattr(errno, name), "words \x1b[31m"),
        "ssh://a/b",
        helper.Request(helper.far.OPEN),
    )
    assert found.id == (error or "source-unreadable")
    assert "\x1b" not in str(found)


def test_zeroes_do_not_come_over_the_wire(host: Sshd, tmp_path: Path) -> None:
    """Of a thick disk, where no hole tells of them."""
    path = tmp_path / "thick"
    with path.open("wb") as out:
        for _ in range(48):
            out.write(bytes(MiB))
        out.write(os.urandom(MiB))
    with through(host) as (wire, store):
        assert whole(store.open(str(path))) == path.read_bytes()
        assert MiB < wire.received() < 1.5 * MiB


def test_a_slow_wire_carries_less_than_the_data(host: Sshd, tmp_path: Path) -> None:
    path = tmp_path / "text"
    words = [os.urandom(60).hex().encode() for _ in range(200)]
    path.write_bytes(b"\n".join(random.choices(words, k=48 * MiB // 121)))
    with through(host, rate=4 * MiB) as (wire, store):
        file = store.open(str(path))

        def received() -> int:
            before = wire.received()
            assert whole(file) == path.read_bytes()
            return wire.received() - before

        # A trial while the machine is busy finds nothing; the next one comes soon.
        wait_until(lambda: received() < 0.75 * file.size)


def test_the_program_is_killed_there(host: Sshd, disk: Path) -> None:
    others = set(programs(host))
    with opened(place_of(host, reader=SshReader.HELPER)) as store:
        file = store.open(str(disk))
        fars = store._programs._fars  # type: ignore[attr-defined]
        with ThreadPoolExecutor(1) as pool:
            for _ in range(3):  # one reading each: a range is given up that is lost again and again
                done = pool.submit(whole, file)
                wait_until(lambda done=done: done.done() or any(one.load for one in fars))  # type: ignore[misc]
                for pid in set(programs(host)) - others:
                    with suppress(ProcessLookupError):  # it was killed before
                        os.kill(pid, signal.SIGKILL)
                assert done.result() == disk.read_bytes()


def test_the_connection_drops(host: Sshd, disk: Path) -> None:
    with through(host) as (wire, store):
        file = store.open(str(disk))
        for count in (100_000, 3 * MiB, 9 * MiB):
            wire.cut_after(count)
            assert whole(file) == disk.read_bytes()
        assert wire.connections() > CONNECTIONS


def test_a_disk_that_waits_for_its_turn_loses_its_connection(host: Sshd, disk: Path) -> None:
    """Again and again, and is read all the same; no connection is made while nobody reads."""
    with through(host) as (wire, store):
        file = store.open(str(disk))
        programs_here = store._programs  # type: ignore[attr-defined]
        for _ in range(helper_programs.STARTS + 1):
            wait_until(lambda: bool(programs_here._fars))
            wire.cut()
            wait_until(lambda: not programs_here._fars)
            before = wire.connections()
            time.sleep(0.05)
            assert wire.connections() == before
            assert file.read(0, 10) == disk.read_bytes()[:10]


def test_a_disk_of_which_little_is_read_takes_one_connection(host: Sshd, disk: Path) -> None:
    """A VM may have twenty, of which one is copied at a time."""
    with through(host) as (wire, store):
        file = store.open(str(disk))
        store.entries(str(disk.parent))
        for at in range(0, 4 * MiB, 64 * KiB):
            file.read(at, 64 * KiB)
            list(file.extents(at, file.size - at))
        assert wire.connections() == 1
        wait_until(lambda: bool(whole(file)) and wire.connections() == CONNECTIONS)


def test_a_program_that_says_nothing_is_ended(
    host: Sshd, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(helper_programs, "LOOK_SECONDS", 0.1)
    others = set(programs(host))
    with opened(place_of(host, reader=SshReader.HELPER)) as store:
        file = store.open(str(disk))
        wait_until(lambda: bool(whole(file)) and len(set(programs(host)) - others) == CONNECTIONS)
        first = set(programs(host)) - others
        for pid in first:
            os.kill(pid, signal.SIGSTOP)
        wait_until(lambda: all(state(pid) == "T" for pid in first))
        fars = [*store._programs._fars]  # type: ignore[attr-defined]
        with ThreadPoolExecutor(1) as pool:
            done = pool.submit(whole, file)
            wait_until(lambda: all(one.load for one in fars))
            for one in fars:  # as time passes
                one.heard -= helper_programs.SILENT_SECONDS
            wait_until(lambda: bool(set(programs(host)) - others - first))
            assert done.result() == disk.read_bytes()
        for pid in first:
            os.kill(pid, signal.SIGCONT)  # it reads the end of its stdin
    wait_until(lambda: not any(map(is_ours, first)) and not set(programs(host)) - others)


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_a_file_that_shrinks(host: Sshd, tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.write_bytes(os.urandom(MiB))
    with opened(place_of(host, reader=SshReader.HELPER)) as store:
        file = store.open(str(path))
        file.read(0, MiB)
        os.truncate(path, MiB // 2)
        with pytest.raises(SourceError) as caught:
            whole(file, 64 * KiB)
        assert caught.value.id in ("source-size", "source-changed-while-copied")


def test_another_file_takes_its_place(host: Sshd, tmp_path: Path) -> None:
    """After a reconnection, what is opened by the same name must be the same."""
    path = tmp_path / "disk"
    path.write_bytes(os.urandom(MiB))
    with opened(place_of(host, reader=SshReader.HELPER)) as store:
        file = store.open(str(path))
        (tmp_path / "other").write_bytes(os.urandom(MiB))
        (tmp_path / "other").rename(path)
        host.end_sessions()
        with pytest.raises(SourceError) as caught:
            file.read(0, MiB)
        assert caught.value.id == "source-changed-while-copied"


def test_cancelled_while_nothing_comes(host: Sshd, disk: Path) -> None:
    cancel = Cancel()
    with tcp_proxy(host.port) as wire, ThreadPoolExecutor(1) as pool:
        place = place_of(host, port=wire.port, reader=SshReader.HELPER)
        with opened(place, cancel) as store:
            file = store.open(str(disk))
            wire.stall()
            done = pool.submit(file.read, 0, MiB)
            cancel.cancel()
            with pytest.raises(Cancelled):
                done.result(END_SECONDS)


def test_nothing_is_left_there(host: Sshd, disk: Path) -> None:
    before, threads = set(programs(host)), threading.active_count()
    with opened(place_of(host, reader=SshReader.HELPER)) as store:
        store.open(str(disk)).read(0, 10)
        wait_until(lambda: bool(set(programs(host)) - before))
        started = set(programs(host)) - before
    wait_until(lambda: not any(map(is_ours, started)) and not set(programs(host)) - before)
    wait_until(lambda: threading.active_count() <= threads)


KILLED = """
import sys
from pathlib import Path
from tests.inputs.ssh.test_helper import opened
from v2v.inputs._ssh.place import SshPlace
known, identity, port, user, path = sys.argv[1:]
place = SshPlace(host="127.0.0.1", port=int(port), user=user, known_hosts=Path(known),
                 identity=Path(identity))
with opened(place) as store:
    store.open(path).read(0, 10)
    print("ready", flush=True)
    sys.stdin.read()
"""


def test_nothing_is_left_there_after_sigkill(host: Sshd, disk: Path) -> None:
    place, before = place_of(host), set(programs(host))
    files = (str(place.known_hosts), str(place.identity))
    argv = [sys.executable, "-c", KILLED, *files, str(host.port), host.user, str(disk)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == b"ready\n"
        wait_until(lambda: bool(set(programs(host)) - before))
        started = set(programs(host)) - before
        process.kill()
    wait_until(lambda: not any(map(is_ours, started)) and not set(programs(host)) - before)


FALSE = """\
#!{python}
import sys
from v2v.inputs._ssh import helper_program as far
out = sys.stdout.buffer
out.write(far.HELLO)
while True:
    out.write({answer})
    out.flush()
"""


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("b'garbage, and more of it'", "not asked"),
        ("far.REPLY.pack(5, 0, 0, 2**32 - 1)", "not asked"),
        ("sys.exit('no memory')", "it says: no memory"),
    ],
)
def test_a_false_program_is_an_error(
    tmp_path: Path, answer: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(helper_programs, "PAUSE_SECONDS", 0.01)
    program = tmp_path / "python3"
    root = Path(__file__).parents[3]
    text = FALSE.format(python=sys.executable, answer=answer)
    program.write_text(
        text.replace("import sys\n", f"import sys\nsys.path.insert(0, {str(root)!r})\n")
    )
    program.chmod(0o755)
    with (
        lacking(tmp_path / "host", str(program)) as host,
        opened(place_of(host, reader=SshReader.HELPER)) as store,
        pytest.raises(SourceError, match=words) as caught,
    ):
        store.open("/etc/hostname")
    assert caught.value.id == "ssh-helper"


def test_a_login_that_talks(tmp_path: Path, disk: Path) -> None:
    with (
        lacking(
            tmp_path / "host", sys.executable, before="echo Welcome; echo 'to us' >&2;"
        ) as host,
        opened(place_of(host)) as store,
    ):
        assert store.open(str(disk)).read(0, 1000) == disk.read_bytes()[:1000]


def test_extents_that_are_none() -> None:
    request = helper.Request(helper.far.EXTENTS, offset=0, length=100)
    request.body = helper.far.EXTENT.pack(60, 0) + helper.far.EXTENT.pack(40, 1)
    assert list(helper._extents(request, "f")) == [Extent(0, 60), Extent(60, 40, zero=True)]
    for lengths in ((60, 60), (0,), ()):
        request.body = b"".join(helper.far.EXTENT.pack(one, 0) for one in lengths)
        with pytest.raises(SourceError, match="makes no sense"):
            list(helper._extents(request, "f"))
