"""What can go wrong while a disk is streamed to a real ovirt-imageio daemon."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.copy.copying import noise, nothing_left_over, pause
from tests.fakes.http_server import QuietHandler, QuietServer, running
from tests.fakes.tcp_proxy import tcp_proxy
from tests.imageio import Daemon, imageio_daemon
from tests.outputs.ovirt.uploads import (
    SIZE,
    Before,
    content_of,
    copied,
    holey,
    lose_patience,
    qcow2_target,
    raw_target,
    sink_to,
    source,
)
from v2v.cancel import Cancel
from v2v.copy import target as target_module
from v2v.copy.ledger import Ledger
from v2v.errors import Cancelled, CopyError, TargetError
from v2v.extents import Extent
from v2v.outputs._ovirt.places import Transfer
from v2v.types import MiB


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    pause(monkeypatch, 0.01, 0.01, 0.01)
    monkeypatch.setattr(target_module, "CHECKPOINT", 4 * MiB)


class TellingLedger(Ledger):
    """Of no file."""

    def __init__(self) -> None:
        super().__init__(None)
        self._recorded = threading.Event()

    def record(self, phase: str, extents: Iterable[Extent]) -> None:
        super().record(phase, extents)
        self._recorded.set()

    def then(self, act: Callable[[], None]) -> Callable[[], None]:
        """What acts once something is recorded."""

        def wait() -> None:
            assert self._recorded.wait(30)
            act()

        return wait


def test_a_copy_goes_on_after_the_daemon_was_killed(tmp_path: Path) -> None:
    content, ledger = holey(SIZE, seed=11), TellingLedger()
    with (
        imageio_daemon() as daemon,
        source(content) as server,
        qcow2_target(daemon, tmp_path, SIZE) as (path, url),
    ):
        with sink_to(daemon.transfer(url, SIZE)) as sink, pytest.raises(CopyError) as error:
            copied(server.endpoint(), Before(sink, 6, ledger.then(daemon.stop)), ledger=ledger)
        assert error.value.id == "copy-write"
        assert "imageio daemon" in str(error.value)
        daemon.start()
        with sink_to(daemon.transfer(url, SIZE), is_zero=False) as sink:
            result, _ = copied(server.endpoint(), sink, ledger=ledger)
        assert 0 < result.resumed < SIZE
        assert content_of(path)[:SIZE] == content


@pytest.mark.parametrize("target", [raw_target, qcow2_target])
def test_a_dropped_connection_is_made_again(
    daemon: Daemon, tmp_path: Path, target: Callable[..., object]
) -> None:
    content = holey(SIZE, seed=12)
    with (
        nothing_left_over(),
        source(content) as server,
        target(daemon, tmp_path, SIZE) as (path, url),
        tcp_proxy(daemon.port) as wire,
    ):
        transfer = daemon.transfer(url, SIZE, port=wire.port)
        with sink_to(transfer) as sink:
            result, _ = copied(server.endpoint(), Before(sink, 5, wire.cut), verify=1.0)
        assert result.retries
        assert content_of(path)[:SIZE] == content


def test_a_transfer_that_ends_in_the_middle_ends_the_copy(daemon: Daemon, tmp_path: Path) -> None:
    """As when the engine cancels or pauses it: the daemon knows the ticket no more."""
    content, ledger = holey(SIZE, seed=13), TellingLedger()
    with source(content) as server, qcow2_target(daemon, tmp_path, SIZE) as (_, url):
        ticket = daemon.add_ticket(url, SIZE)
        transfer = Transfer(url=daemon.url(ticket), cafile=daemon.cafile, size=SIZE)
        with sink_to(transfer) as sink, pytest.raises(TargetError) as error:
            ending = Before(sink, 5, ledger.then(lambda: daemon.cancel_ticket(ticket)))
            copied(server.endpoint(), ending, ledger=ledger)
    assert error.value.id == "transfer-ended"
    assert ledger.touched()  # for `resume`


def test_a_silent_daemon_is_noticed(daemon: Daemon, tmp_path: Path) -> None:
    content = noise(8 * MiB)
    with (
        source(content) as server,
        raw_target(daemon, tmp_path, len(content)) as (_, url),
        tcp_proxy(daemon.port) as wire,
    ):
        transfer = daemon.transfer(url, len(content), port=wire.port)
        with sink_to(transfer) as sink, pytest.raises(CopyError) as error:

            def stall() -> None:
                lose_patience(sink)
                wire.stall()

            copied(server.endpoint(), Before(sink, 1, stall))
        assert error.value.id == "copy-stalled"


def test_a_daemon_that_was_silent_for_a_while_is_forgiven(daemon: Daemon, tmp_path: Path) -> None:
    content = holey(8 * MiB, seed=14)
    with (
        source(content) as server,
        raw_target(daemon, tmp_path, len(content)) as (path, url),
        tcp_proxy(daemon.port) as wire,
    ):
        transfer = daemon.transfer(url, len(content), port=wire.port)
        with sink_to(transfer) as sink:
            reopen, patience = sink.reopen, sink._stall

            def stall() -> None:
                lose_patience(sink)
                wire.stall()

            def flow() -> None:
                wire.flow()
                sink._stall = patience
                reopen()

            sink.reopen = flow  # type: ignore[method-assign]
            result, _ = copied(server.endpoint(), Before(sink, 1, stall))
        assert result.retries
        assert path.read_bytes() == content


def test_a_cancelled_copy_does_not_wait_for_its_put(daemon: Daemon, tmp_path: Path) -> None:
    """Nothing goes through, and nobody gives up by itself."""
    content, cancel = noise(64 * MiB), Cancel()
    with (
        nothing_left_over(),
        source(content) as server,
        raw_target(daemon, tmp_path, len(content)) as (_, url),
        tcp_proxy(daemon.port) as wire,
    ):
        transfer = daemon.transfer(url, len(content), port=wire.port)
        seen = threading.Event()

        def stall() -> None:
            wire.stall()
            seen.set()

        def cancel_later() -> None:
            seen.wait()
            cancel.cancel()

        canceller = threading.Thread(target=cancel_later)
        canceller.start()
        with (
            pytest.raises(Cancelled),
            sink_to(transfer, stall=600.0, cancel=cancel, request_size=64 * MiB) as sink,
        ):
            copied(server.endpoint(), Before(sink, 0, stall), cancel=cancel, stall_timeout=600.0)
        canceller.join()


@pytest.mark.parametrize("request_size", [1 * MiB, 64 * MiB])
def test_a_full_storage_is_told_from_the_daemons_failure(
    daemon: Daemon, small: Path, request_size: int
) -> None:
    """Also when the daemon hangs up in the middle of a request."""
    content = noise(SIZE)
    with (
        source(content) as server,
        qcow2_target(daemon, small, SIZE) as (_, url),
        sink_to(daemon.transfer(url, SIZE), request_size=request_size) as sink,
        pytest.raises(CopyError) as error,
    ):
        copied(server.endpoint(), sink)
    assert error.value.id == "copy-write"
    assert "a full storage domain" in str(error.value)
    assert "daemon.log" in str(error.value)


def test_a_disk_that_is_too_small_is_refused_at_once(daemon: Daemon, tmp_path: Path) -> None:
    content = noise(SIZE)
    with (
        source(content) as server,
        raw_target(daemon, tmp_path, 1 * MiB) as (_, url),
        sink_to(daemon.transfer(url, 1 * MiB), request_size=SIZE) as sink,
        pytest.raises(CopyError) as error,
    ):
        copied(server.endpoint(), sink)
    assert error.value.id == "copy-write"
    assert "HTTP 416" in str(error.value)


@pytest.mark.parametrize("answer", [b"[]", b"7", b'{"max_writers": "many"}', b'{"features": 7}'])
def test_strange_answers_are_an_error_of_the_target(answer: bytes) -> None:
    with server_that_says(answer) as port, pytest.raises(TargetError) as error:
        transfer = Transfer(url=f"http://127.0.0.1:{port}/images/secret", size=MiB)
        with sink_to(transfer):
            pass
    assert error.value.id == "target-unreachable"
    assert "secret" not in str(error.value)


@contextmanager
def server_that_says(answer: bytes) -> Iterator[int]:
    class Handler(QuietHandler):
        def do_OPTIONS(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

    with running(QuietServer(Handler)) as server:
        yield server.server_port
