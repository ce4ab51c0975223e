"""Disks that are streamed to a real ovirt-imageio daemon, over TLS."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from threading import Event, Semaphore
from typing import Any

import pytest

from tests.copy.copying import noise, nothing_left_over
from tests.fakes.http_server import QuietHandler, QuietServer, running
from tests.fakes.vsphere.certificates import certificate
from tests.imageio import Daemon, imageio_daemon
from tests.outputs.ovirt.uploads import (
    SIZE,
    content_of,
    copied,
    holey,
    qcow2_target,
    raw_target,
    sink_to,
    source,
)
from v2v.copy.sinks import SinkLost
from v2v.errors import TargetError
from v2v.outputs._ovirt import daemon as daemon_module
from v2v.outputs._ovirt import imageio as imageio_module
from v2v.outputs._ovirt.imageio import ImageioSink
from v2v.outputs._ovirt.places import Transfer
from v2v.types import KiB, MiB


@pytest.fixture
def transfer(daemon: Daemon, tmp_path: Path) -> Iterator[Transfer]:
    with raw_target(daemon, tmp_path, 4 * MiB) as (_, url):
        yield daemon.transfer(url, 4 * MiB)


@pytest.mark.parametrize("target", [raw_target, qcow2_target])
def test_every_byte_arrives(daemon: Daemon, tmp_path: Path, target: Any) -> None:
    content = holey(SIZE, seed=5)
    with (
        nothing_left_over(),
        source(content) as server,
        target(daemon, tmp_path, SIZE) as (path, url),
    ):
        with sink_to(daemon.transfer(url, SIZE), request_size=4 * MiB) as sink:
            assert sink.workers == (1 if target is raw_target else 4)
            result, _ = copied(server.endpoint(), sink, verify=1.0)
            extents = list(sink.extents())
        found = content_of(path)
    assert found[:SIZE] == content
    assert not any(found[SIZE:])  # the daemon fills the last block of a file up
    assert result.verified == 1.0
    assert result.write_size > 1 * MiB
    assert max(length for _, length in server.asked()) <= 1 * MiB
    assert extents[-1].end >= SIZE
    if target is qcow2_target:
        assert any(extent.zero for extent in extents)
        assert path.stat().st_size < SIZE  # holes take no space


def test_holes_of_a_disk_that_held_something_become_zeroes(daemon: Daemon, tmp_path: Path) -> None:
    content = noise(4 * MiB)
    content[1 * MiB : 3 * MiB] = bytes(2 * MiB)
    path = tmp_path / "old.raw"
    path.write_bytes(b"x" * len(content))
    with source(content) as server:
        transfer = daemon.transfer(f"file://{path}", len(content))
        with sink_to(transfer, is_zero=False) as sink:
            copied(server.endpoint(), sink)
    assert path.read_bytes() == content
    assert path.stat().st_blocks * 512 <= 2 * MiB + 64 * KiB


@pytest.mark.parametrize("is_zero", [True, False])
def test_zeroes_that_the_source_stores_are_not_all_sent(
    daemon: Daemon, tmp_path: Path, is_zero: bool
) -> None:
    content = noise(16 * MiB)
    content[2 * MiB : 12 * MiB] = bytes(10 * MiB)
    path = tmp_path / "old.raw"
    path.write_bytes(bytes(len(content)) if is_zero else b"x" * len(content))
    with source(content) as server:
        server.extents = lambda offset, length: [(length, 0)]
        transfer = daemon.transfer(f"file://{path}", len(content))
        with sink_to(transfer, is_zero=is_zero, request_size=4 * MiB) as sink:
            result, _ = copied(server.endpoint(), sink, verify=1.0)
    assert path.read_bytes() == content
    assert result.found_zero == 8 * MiB  # from 4 MiB on: a request under way goes on


def test_the_unix_socket_is_used_on_the_same_host(tmp_path: Path) -> None:
    content = holey(4 * MiB, seed=7)
    with (
        imageio_daemon(local=True) as daemon,
        raw_target(daemon, tmp_path, len(content)) as (
            path,
            url,
        ),
    ):
        with source(content) as server, sink_to(daemon.transfer(url, len(content))) as sink:
            copied(server.endpoint(), sink)
        assert path.read_bytes() == content
        log = daemon.closed_log().splitlines()
        served = [line for line in log if "CLOSE" in line and "write" in line]
        assert served
        assert all("client=local" in line for line in served)


def test_a_connection_that_was_idle_is_made_anew(
    daemon: Daemon, transfer: Transfer, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = holey(4 * MiB, seed=8)
    with source(content) as server, sink_to(transfer) as sink:
        monkeypatch.setattr(daemon_module, "IDLE_SECONDS", 0)
        result, _ = copied(server.endpoint(), sink, verify=1.0)
    assert not result.retries


# Which cannot be opened --------------------------------------------------------------------------


def test_an_untrusted_certificate_is_refused_unless_it_is_not_to_be_verified(
    transfer: Transfer, tmp_path: Path
) -> None:
    other = replace(transfer, cafile=certificate(tmp_path, name="other").cafile)
    with pytest.raises(TargetError) as error, sink_to(other):
        pass
    assert error.value.id == "target-untrusted"
    with sink_to(replace(other, verify=False)) as sink:
        sink.flush()


def test_an_untrusted_certificate_is_no_reason_to_try_the_proxy(
    transfer: Transfer, tmp_path: Path
) -> None:
    other = certificate(tmp_path, name="other").cafile
    both = replace(transfer, cafile=other, proxy_url="https://127.0.0.1:1/images/x")
    with pytest.raises(TargetError) as error, sink_to(both):
        pass
    assert error.value.id == "target-untrusted"


def test_the_proxy_is_used_where_the_host_cannot_be_reached(transfer: Transfer) -> None:
    unreachable = "https://127.0.0.1:1/images/secret-ticket"
    with sink_to(replace(transfer, url=unreachable, proxy_url=transfer.url)) as sink:
        sink.flush()
    neither = replace(transfer, url=unreachable, proxy_url=unreachable)
    with pytest.raises(TargetError) as error, sink_to(neither):
        pass
    assert error.value.id == "target-unreachable"
    assert "secret" not in str(error.value)


def test_a_host_that_cannot_be_reached_is_tried_once(
    daemon: Daemon, transfer: Transfer, tmp_path: Path
) -> None:
    """A firewall that drops packets costs seconds each time."""
    content, tried = holey(transfer.size, seed=9), []

    class Deaf(QuietHandler):
        def handle(self) -> None:
            tried.append(self.client_address)

    with (
        running(QuietServer(Deaf)) as deaf,
        source(content) as server,
    ):
        url = f"https://127.0.0.1:{deaf.server_port}/images/x"
        with sink_to(replace(transfer, url=url, proxy_url=transfer.url)) as sink:
            copied(server.endpoint(), sink, verify=1.0)
            sink.reopen()
            sink.flush()
    assert len(tried) == 1


def test_a_disk_that_waits_is_not_forgotten_by_the_daemon(
    daemon: Daemon, transfer: Transfer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine pauses a transfer where nothing was done for its time of inactivity."""
    ticket, touched, touch = transfer.url.rpartition("/")[2], Event(), ImageioSink.touch

    def told(sink: ImageioSink) -> None:
        daemon.expire_ticket(ticket, seconds=100)
        soon = daemon.ticket(ticket)["expires"]
        touch(sink)
        if daemon.ticket(ticket)["expires"] > soon + 100:
            touched.set()

    monkeypatch.setattr(imageio_module, "KEEP_SECONDS", 0.01)
    monkeypatch.setattr(ImageioSink, "touch", told)
    with sink_to(transfer):
        assert touched.wait(30)


def test_a_sign_of_life_that_fails_is_no_failure_of_the_copy(
    transfer: Transfer, monkeypatch: pytest.MonkeyPatch
) -> None:
    content, failures = noise(transfer.size), Semaphore(0)

    def fail(sink: ImageioSink) -> None:
        failures.release()
        raise SinkLost(errno.ENOTCONN, "gone for now")

    monkeypatch.setattr(imageio_module, "KEEP_SECONDS", 0.01)
    monkeypatch.setattr(ImageioSink, "touch", fail)
    with source(content) as server, sink_to(transfer) as sink:
        assert failures.acquire(timeout=30) and failures.acquire(timeout=30)
        copied(server.endpoint(), sink, verify=1.0)


@pytest.mark.parametrize("known", [True, False])
def test_a_transfer_that_is_over_cannot_be_opened(
    daemon: Daemon, transfer: Transfer, known: bool
) -> None:
    if known:
        ticket = daemon.add_ticket("file:///nothing", transfer.size, timeout=0)
    else:
        ticket = "11111111-2222-3333-4444-555555555555"
    with pytest.raises(TargetError) as error, sink_to(replace(transfer, url=daemon.url(ticket))):
        pass
    assert error.value.id == "transfer-ended"
    assert ticket not in str(error.value)
