"""Sources and targets that fail, fall silent, die and come back.

After each of them the target is right, or there is an error that says what went wrong: there is
nothing in between.
"""

from __future__ import annotations

import re
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.copy.copying import (
    SIZE,
    Wrapped,
    copied,
    file_sink,
    memory,
    noise,
    nothing_left_over,
    patchy,
    pause,
)
from tests.fakes.nbd_server import Act, NbdServer, serve
from tests.fakes.nbd_wire import Command
from v2v import nbd_client, nbdkit
from v2v.cancel import Cancel
from v2v.copy.sinks import FileSink, NbdSink, NullSink
from v2v.endpoint import Endpoint
from v2v.errors import Cancelled, CopyError, V2VError
from v2v.run import Run
from v2v.types import KiB, MiB

BOUND = 60.0  # seconds: what never ends fails here, rather than at pytest's limit


@pytest.fixture(autouse=True)
def no_leaks() -> Iterator[None]:
    with nothing_left_over():
        yield


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """In all long enough for a server to be started anew."""
    pause(monkeypatch, 0.02, 0.05, 0.1, 0.2, 0.5)


@pytest.fixture
def source(no_leaks: None, tmp_path: Path) -> Iterator[NbdServer]:
    with serve(tmp_path, patchy(SIZE), "source") as server:
        server.extents = server.true_extents
        yield server


@pytest.fixture
def target(no_leaks: None, tmp_path: Path) -> Iterator[NbdServer]:
    with serve(tmp_path, bytes(SIZE), "target") as server:
        yield server


@contextmanager
def sink_to(target: NbdServer, *, stall: float = 30.0, cancel: Cancel | None = None, **more):
    chosen = {"request_size": 256 * KiB, "is_zero": True, **more}
    sink = NbdSink(target.endpoint(read_only=False), stall=stall, cancel=cancel, **chosen)
    try:
        yield sink
    finally:
        sink.hang_up()


def failing(work: Callable[[], object]) -> CopyError:
    """The error that the work ends with, within bounds."""
    outcome: list[BaseException | None] = []

    def run() -> None:
        try:
            work()
            outcome.append(None)
        except V2VError as error:
            outcome.append(error.with_traceback(None))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(BOUND)
    assert not thread.is_alive(), "it goes on for ever"
    assert isinstance(outcome[0], CopyError), outcome[0]
    return outcome[0]


def range_of(error: CopyError) -> tuple[int, int]:
    """First and last byte that the message names."""
    found = re.search(r"bytes (\d+) to (\d+)", error.message)
    assert found, error.message
    return int(found[1]), int(found[2])


# The source


def test_a_connection_that_breaks_in_the_middle_of_an_answer(source: NbdServer) -> None:
    source.fault(Act.TEAR, skip=3, times=1)
    result, content = copied(source.endpoint())
    assert content == source.content
    assert result.retries >= 1


def test_a_connection_that_breaks_again_and_again(source: NbdServer) -> None:
    """There is always some progress in between."""
    source.blocks = (1, 4096, 64 * KiB)
    source.fault(Act.DROP, skip=1, every=8)
    result, content = copied(source.endpoint())
    assert content == source.content
    assert result.retries >= 3


def test_a_read_that_fails_once(source: NbdServer) -> None:
    fault = source.fault(Act.ERROR, skip=2, times=1)
    result, content = copied(source.endpoint())
    assert content == source.content
    assert (fault.met, result.retries) == (1, 1)


def test_a_read_that_fails_for_ever_names_disk_range_and_cause(source: NbdServer) -> None:
    source.content[MiB : MiB + 4096] = noise(4096)
    fault = source.fault(Act.ERROR, start=MiB, end=MiB + 512)
    error = failing(lambda: copied(source.endpoint(), disk=2))
    assert error.id == "copy-read"
    assert error.message.startswith("disk 3: ")
    assert "Input/output error" in error.message
    first, last = range_of(error)
    assert first <= MiB + 511 and last >= MiB and last < SIZE
    assert error.hint
    assert 2 <= fault.met <= 20


def test_a_silent_source_is_asked_again_on_a_fresh_connection(source: NbdServer) -> None:
    fault = source.fault(Act.STALL, start=MiB, end=2 * MiB, times=1)
    result, content = copied(source.endpoint(), stall_timeout=0.3)
    assert fault.met == 1
    assert content == source.content
    assert result.retries >= 1


def test_a_source_that_stays_silent(source: NbdServer) -> None:
    source.fault(Act.STALL)
    error = failing(lambda: copied(source.endpoint(), stall_timeout=0.2))
    assert error.id == "copy-stalled"
    assert error.message.startswith("disk 1: ")


def test_a_source_that_answers_late_is_not_mixed_up(source: NbdServer) -> None:
    """The late answer comes while its buffer may hold something else already."""
    source.fault(Act.STALL, every=4, times=4)

    def release(call: str, number: int) -> None:
        if call == "write" and number % 4 == 3:  # who writes may be who has to read the answer
            threading.Thread(target=source.release).start()

    with memory(SIZE) as target:
        copied(source.endpoint(), Wrapped(file_sink(target), release), stall_timeout=0.3)
        assert target.content == source.content


def test_a_source_that_goes_away_and_does_not_come_back(source: NbdServer) -> None:
    source.fault(Act.KILL, skip=5)
    error = failing(lambda: copied(source.endpoint()))
    assert error.id == "copy-read"
    assert error.hint


def test_a_source_that_is_gone_before_the_copy(source: NbdServer) -> None:
    endpoint = source.endpoint()
    source.stop()
    with pytest.raises(V2VError) as outcome:
        copied(endpoint)
    assert outcome.value.id in ("copy-read", "nbd-unreachable")
    outcome.value.__traceback__ = None
    source.start()


def test_a_source_that_dies_while_it_tells_extents(source: NbdServer) -> None:
    source.extents = lambda offset, length: [(MiB, 0)]
    source.fault(Act.TEAR, Command.EXTENTS, skip=2, times=1)
    try:
        content = copied(source.endpoint())[1]
    except V2VError as error:
        assert error.id in ("nbd-lost", "copy-read")
    else:
        assert content == source.content


@pytest.mark.parametrize("times", [1, None])
def test_a_source_that_is_silent_when_asked_for_extents(source: NbdServer, times) -> None:
    source.fault(Act.STALL, Command.EXTENTS, **({"times": times} if times else {}))
    if times:
        assert copied(source.endpoint(), stall_timeout=0.3)[1] == source.content
        return
    with pytest.raises(V2VError) as outcome:
        copied(source.endpoint(), stall_timeout=0.3)
    assert outcome.value.id == "nbd-lost"
    assert "silent" in outcome.value.message
    outcome.value.__traceback__ = None


@contextmanager
def nbdkit_on(socket: Path, image: Path) -> Iterator[subprocess.Popen[bytes]]:
    """An nbdkit that listens when this is entered, and can be killed."""
    pid_file = socket.with_suffix(".pid")
    pid_file.unlink(missing_ok=True)
    socket.unlink(missing_ok=True)
    argv = ["nbdkit", "-f", "-r", "-P", str(pid_file), "-U", str(socket), "file", str(image)]
    with subprocess.Popen(argv) as server:
        try:
            while not pid_file.exists() and server.poll() is None:
                threading.Event().wait(0.005)
            assert server.poll() is None
            yield server
        finally:
            server.kill()


def test_a_server_that_is_killed_and_started_again_on_its_socket(
    tmp_path, monkeypatch, need_tool
) -> None:
    need_tool("nbdkit")
    pause(monkeypatch, 0.02, 0.05, *[0.2] * 150)  # however long a new one takes to start
    image, path = tmp_path / "image", tmp_path / "s"
    image.write_bytes(noise(16 * MiB))
    killed = threading.Event()
    content: list[bytes] = []

    def kill(call: str, number: int) -> None:
        if call == "write" and number == 3:
            server.kill()
            server.wait()
            killed.set()

    def work(endpoint: Endpoint) -> None:
        with memory(endpoint.size) as target:
            copied(endpoint, Wrapped(file_sink(target), kill))
            content.append(target.content)

    with nbdkit_on(path, image) as server:
        thread = threading.Thread(target=work, args=[nbd_client.describe(path)])
        thread.start()
        assert killed.wait(BOUND)
        with nbdkit_on(path, image):
            thread.join(BOUND)
    assert content == [image.read_bytes()]


def test_a_server_that_is_killed_for_good(tmp_path, need_tool) -> None:
    need_tool("nbdkit")
    image, path = tmp_path / "image", tmp_path / "s"
    image.write_bytes(noise(64 * MiB))

    def kill(call: str, number: int) -> None:
        server.kill()
        server.wait()

    with nbdkit_on(path, image) as server:
        endpoint = nbd_client.describe(path)
        sink = Wrapped(NullSink(request_size=256 * KiB), kill)
        error = failing(lambda: copied(endpoint, sink))
    assert error.id == "copy-read"


@contextmanager
def kit(run: Run, plugin: str, *words: str, filters: tuple[str, ...], read_only: bool = True):
    with nbdkit.serve(
        plugin, words, run=run, name=plugin, filters=filters, read_only=read_only
    ) as socket:
        yield nbd_client.describe(socket, read_only=read_only)


@pytest.mark.parametrize(
    ("filters", "words"),
    [
        (("error",), ("error-pread=EIO", "error-pread-rate=3%")),
        (("delay",), ("delay-read=20ms",)),
        (("rate",), ("rate=100M",)),
        (("noparallel",), ("serialize=requests",)),
        (("error",), ("error-extents=EIO", "error-extents-rate=50%")),
        (("blocksize-policy",), ("blocksize-minimum=4096", "blocksize-error-policy=error")),
        (("noextents",), ()),
    ],
    ids=lambda words: " ".join(words) or "-",
)
def test_a_source_behind_filters(run, tmp_path, need_tool, filters, words) -> None:
    need_tool("nbdkit")
    image = tmp_path / "image"
    image.write_bytes(patchy(SIZE))
    with kit(run, "file", str(image), *words, filters=filters) as endpoint:
        _, content = copied(endpoint)
    assert content == image.read_bytes()


# The target


def test_a_filesystem_that_fills_up(source: NbdServer, small: Path) -> None:
    source.content = noise(16 * MiB)
    with (small / "disk").open("w+b") as file:
        file.truncate(16 * MiB)
        sink = FileSink(file.fileno(), request_size=256 * KiB, is_zero=True, size=16 * MiB)
        error = failing(lambda: copied(source.endpoint(), sink, disk=1))
    assert error.id == "target-full"
    assert error.message.startswith("disk 2: ") and "No space left on device" in error.message
    assert "v2v resume" in (error.hint or "")


def test_an_nbd_target_that_is_full(run, source: NbdServer, need_tool) -> None:
    need_tool("nbdkit")
    words = (str(SIZE), "error-pwrite=ENOSPC", "error-pwrite-rate=100%")
    with kit(run, "memory", *words, filters=("error",), read_only=False) as endpoint:
        sink = NbdSink(endpoint, request_size=256 * KiB, is_zero=True)
        error = failing(lambda: copied(source.endpoint(), sink))
        sink.hang_up()
    assert error.id == "target-full"


def test_a_target_that_is_full_when_flushed(source: NbdServer, target: NbdServer) -> None:
    import errno

    target.fault(Act.ERROR, Command.FLUSH, error=errno.ENOSPC)
    with sink_to(target) as sink:
        error = failing(lambda: copied(source.endpoint(), sink))
    assert error.id == "target-full"


@pytest.mark.parametrize("command", [Command.WRITE, Command.ZERO, Command.FLUSH])
def test_a_target_that_refuses(source: NbdServer, target: NbdServer, command: Command) -> None:
    target.fault(Act.ERROR, command)
    with sink_to(target, is_zero=False) as sink:
        error = failing(lambda: copied(source.endpoint(), sink, disk=1))
    assert error.id == "copy-write"
    assert error.message.startswith("disk 2: ") and "Input/output error" in error.message
    assert error.hint


@pytest.mark.parametrize("command", [Command.WRITE, Command.ZERO, Command.FLUSH])
@pytest.mark.parametrize("act", [Act.DROP, Act.TEAR, Act.RESTART])
@pytest.mark.parametrize("skip", [0, 4])
def test_a_target_that_is_lost_once(
    source: NbdServer, target: NbdServer, command: Command, act: Act, skip: int
) -> None:
    """After a restart everything that was not flushed is gone, and has to be written again."""
    skip = 0 if command == Command.FLUSH else skip
    fault = target.fault(act, command, skip=skip, times=1)
    target.content[:] = target.durable[:] = b"\x77" * SIZE
    with sink_to(target, is_zero=False) as sink:
        result, _ = copied(source.endpoint(), sink)
    assert fault.met == 1
    assert target.durable == source.content
    assert result.retries >= 1


def test_a_target_that_restarts_several_times(source, target, monkeypatch) -> None:
    target.fault(Act.RESTART, Command.WRITE, skip=3, every=7, times=3)
    with sink_to(target) as sink:
        copied(source.endpoint(), sink)
    assert target.durable == source.content


def test_a_target_without_multi_conn_that_restarts(source: NbdServer, target: NbdServer) -> None:
    target.multi_conn = False
    target.fault(Act.RESTART, Command.WRITE, skip=5, times=1)
    with sink_to(target) as sink:
        copied(source.endpoint(), sink)
    assert target.durable == source.content


def test_source_and_target_that_both_break(source: NbdServer, target: NbdServer) -> None:
    source.fault(Act.DROP, skip=2, every=9, times=4)
    target.fault(Act.RESTART, Command.WRITE, skip=2, every=11, times=2)
    with sink_to(target) as sink:
        copied(source.endpoint(), sink)
    assert target.durable == source.content


def test_a_target_that_goes_away_for_good(source: NbdServer, target: NbdServer) -> None:
    target.fault(Act.KILL, Command.WRITE, skip=4)
    with sink_to(target) as sink:
        error = failing(lambda: copied(source.endpoint(), sink))
    assert error.id in ("copy-write", "copy-stalled")
    assert error.message.startswith("disk 1: ")


@pytest.mark.parametrize("command", [Command.WRITE, Command.FLUSH])
def test_a_target_that_is_silent_once(source, target, command) -> None:
    fault = target.fault(Act.STALL, command, times=1)
    with sink_to(target, stall=0.3) as sink:
        copied(source.endpoint(), sink)
    assert fault.met == 1
    assert target.durable == source.content


@pytest.mark.parametrize("command", [Command.WRITE, Command.FLUSH])
def test_a_target_that_stays_silent(source, target, command) -> None:
    target.fault(Act.STALL, command)
    with sink_to(target, stall=0.2) as sink:
        error = failing(lambda: copied(source.endpoint(), sink))
    assert error.id in ("copy-write", "copy-stalled")


def test_a_slow_target(run, source: NbdServer, need_tool) -> None:
    need_tool("nbdkit")
    words = (str(SIZE), "delay-write=20ms")
    with kit(run, "memory", *words, filters=("delay",), read_only=False) as endpoint:
        sink = NbdSink(endpoint, request_size=256 * KiB, is_zero=True)
        copied(source.endpoint(), sink)
        sink.close()
        assert copied(endpoint)[1] == source.content


# Reading back


def test_what_was_spoilt_on_the_target_is_written_again(source, target) -> None:
    fault = target.fault(Act.SPOIL, Command.WRITE, skip=4, times=1)
    with sink_to(target) as sink:
        result, _ = copied(source.endpoint(), sink, verify=1.0)
    assert (fault.met, result.verified) == (1, 1.0)
    assert target.durable == source.content


def test_a_target_that_spoils_what_it_gets(source: NbdServer, target: NbdServer) -> None:
    target.fault(Act.SPOIL, Command.WRITE, skip=4)
    with sink_to(target) as sink:
        error = failing(lambda: copied(source.endpoint(), sink, verify=1.0, disk=1))
    first, last = range_of(error)
    assert error.id == "verify-mismatch"
    assert error.message.startswith("disk 2: ")
    assert target.content[first : last + 1] != source.content[first : last + 1]


def test_a_target_that_cannot_be_read_back(source: NbdServer, target: NbdServer) -> None:
    target.fault(Act.ERROR, Command.READ)
    with sink_to(target) as sink:
        error = failing(lambda: copied(source.endpoint(), sink, verify=1.0))
    assert error.id == "verify-read"
    assert error.message.startswith("disk 1: ")


def test_a_target_that_is_right_is_verified(source: NbdServer, target: NbdServer) -> None:
    with sink_to(target) as sink:
        result, _ = copied(source.endpoint(), sink, verify=1.0)
    assert result.verified == 1.0
    assert result.checksum


# Cancel


def cancelled(work: Callable[[Cancel], object], ready: Callable[[], None]) -> None:
    """Cancel once `ready` returns: the work ends long before a stall, and as cancelled."""
    cancel = Cancel()
    outcome: list[BaseException | None] = []

    def run() -> None:
        try:
            work(cancel)
            outcome.append(None)
        except V2VError as error:
            outcome.append(error.with_traceback(None))

    thread = threading.Thread(target=run)
    thread.start()
    try:
        ready()
    finally:
        cancel.cancel()
        thread.join(BOUND)
        alive = thread.is_alive()
    assert not alive, "it does not stop"
    assert isinstance(outcome[0], Cancelled), outcome[0]


@pytest.mark.parametrize("command", [Command.READ, Command.EXTENTS])
def test_cancel_while_the_source_is_silent(source: NbdServer, command: Command) -> None:
    source.fault(Act.STALL, command)
    endpoint = source.endpoint()
    cancelled(
        lambda cancel: copied(endpoint, cancel=cancel, stall_timeout=3600.0),
        source.wait_until_stalled,
    )


@pytest.mark.parametrize("command", [Command.WRITE, Command.ZERO, Command.FLUSH, Command.READ])
def test_cancel_while_the_target_is_silent(source, target, command) -> None:
    """A read is one of the verification."""
    target.fault(Act.STALL, command)

    def work(cancel: Cancel) -> None:
        with sink_to(target, stall=3600.0, cancel=cancel, is_zero=False) as sink:
            copied(source.endpoint(), sink, cancel=cancel, verify=1.0)

    cancelled(work, target.wait_until_stalled)


def test_cancel_while_it_waits_to_try_again(source, monkeypatch) -> None:
    refused = source.fault(Act.ERROR, times=10**6)
    pause(monkeypatch, 3600.0)

    def met() -> None:
        while not refused.met:
            threading.Event().wait(0.005)

    cancelled(lambda cancel: copied(source.endpoint(), cancel=cancel), met)


def test_cancel_while_the_source_does_not_shake_hands(tmp_path: Path) -> None:
    """Somebody listens, and says nothing."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen(8)
        endpoint = Endpoint("nbd+unix:///?socket=s", SIZE, socket=tmp_path / "s")
        taken: list[socket.socket] = []
        cancelled(
            lambda cancel: copied(endpoint, cancel=cancel, stall_timeout=3600.0),
            lambda: taken.append(listener.accept()[0]),
        )
        for connection in taken:
            connection.close()


def test_cancel_while_it_keeps_to_a_bandwidth(source: NbdServer) -> None:
    def reading() -> None:
        while not source.asked():
            threading.Event().wait(0.005)

    cancelled(lambda cancel: copied(source.endpoint(), cancel=cancel, bandwidth=1000), reading)


def test_cancel_before_it_begins(source: NbdServer) -> None:
    cancel = Cancel()
    cancel.cancel()
    with pytest.raises(Cancelled) as error:
        copied(source.endpoint(), cancel=cancel)
    error.value.__traceback__ = None
    assert source.asked() == []


def test_a_sink_with_a_bug_ends_the_copy(source: NbdServer) -> None:
    """Whatever it raises comes out, and no thread waits for ever."""

    def fail(call: str, number: int) -> None:
        if number == 3:
            raise ZeroDivisionError("a bug")

    with memory(SIZE) as target:
        sink = Wrapped(file_sink(target), fail)
        with pytest.raises(ZeroDivisionError) as error:
            copied(source.endpoint(), sink)
        error.value.__traceback__ = None


def test_a_read_that_fails_leaves_the_server_alive(run, tmp_path: Path, need_tool) -> None:
    """nbdkit before 1.36 aborts when a client leaves with answers under way."""
    need_tool("nbdkit")
    image = tmp_path / "source"
    image.write_bytes(noise(32 * MiB))
    words = (f"file={image}", "error-pread=EIO", "error-pread-rate=5%")
    with nbdkit.serve("file", words, run=run, name="source", filters=("error",)) as socket:
        for _ in range(5):
            result, content = copied(nbd_client.describe(socket), request_size=64 * KiB)
            assert content == image.read_bytes()
            assert result.retries
