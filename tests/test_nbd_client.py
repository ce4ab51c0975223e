"""Handshakes, extents and failures with real NBD servers."""

from __future__ import annotations

import socket
import threading
import tracemalloc
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.fakes.disks import disk_content
from tests.places import nbd_servers
from v2v import nbd_client, nbdkit, process, qemu_img, qemu_nbd
from v2v.cancel import Cancel
from v2v.errors import Cancelled, SourceError, TargetError
from v2v.extents import Extent
from v2v.process import ToolError
from v2v.run import Run
from v2v.types import DiskFormat, GiB, KiB, MiB


@pytest.fixture(autouse=True)
def tools(need_tool) -> None:
    for tool in ("nbdkit", "qemu-nbd", "qemu-img"):
        need_tool(tool)


def test_probes() -> None:
    assert nbdkit.version() >= (1, 32)
    assert nbdkit.has_plugin("file") and not nbdkit.has_plugin("no-such")
    assert nbdkit.has_filter("truncate") and not nbdkit.has_filter("no-such")


def test_describes_what_the_server_promises(run: Run) -> None:
    params = ["1M", "blocksize-minimum=512", "blocksize-preferred=64K", "blocksize-maximum=1M"]
    filters = ["blocksize-policy"]
    with nbdkit.serve("memory", params, run=run, name="m", filters=filters) as socket:
        found = nbd_client.describe(socket)
    assert (found.size, found.read_only, found.multi_conn) == (MiB, True, True)
    sizes = (found.minimum_block, found.preferred_block, found.maximum_block)
    assert sizes == (512, 64 * KiB, MiB)


def test_reads_of_any_alignment(run: Run, tmp_path: Path) -> None:
    (tmp_path / "d").write_bytes(disk_content())
    params = [f"file={tmp_path}/d", "blocksize-minimum=4096", "blocksize-error-policy=error"]
    filters = ["blocksize-policy"]
    spans = ((0, 1), (5000, 9000), (MiB - 3, 3 * MiB), (6 * MiB - 1, 9), (6 * MiB, 1), (-1, 1))
    with (
        nbdkit.serve("file", params, run=run, name="f", filters=filters) as socket,
        nbd_client.ExportReader(nbd_client.describe(socket), "disk") as reader,
    ):
        for offset, length in spans:
            expected = disk_content()[offset : offset + length] if offset >= 0 else b""
            assert reader.read(offset, length) == expected


def test_what_was_read_is_not_kept(run: Run) -> None:
    with (
        nbdkit.serve("memory", ["1M"], run=run, name="m") as socket,
        nbd_client.ExportReader(nbd_client.describe(socket), "disk") as reader,
    ):
        reader.read(0, MiB)
        tracemalloc.start()
        try:
            for _ in range(8):
                reader.read(0, MiB)
            kept, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert kept < MiB


def test_a_server_that_stands_still_is_not_waited_for(tmp_path, monkeypatch) -> None:
    """Neither for its data, nor when it is said goodbye to."""
    monkeypatch.setattr(nbd_client, "GOODBYE_SECONDS", 0.2)
    with nbd_servers(tmp_path) as servers:
        uri = f"nbd+unix:///?socket={servers.nbdkit('memory', '1M', name='m')}"
        endpoint = nbd_client.describe(uri=uri)
        with ExitStack() as until:
            with nbd_client.ExportReader(endpoint, "disk"):
                until.enter_context(servers.stopped("m"))
            with pytest.raises(SourceError, match="no answer within 1 s"):
                nbd_client.ExportReader(endpoint, "disk", stall=1.0)
        with (
            nbd_client.ExportReader(endpoint, "disk", stall=60.0) as reader,
            servers.stopped("m"),
            pytest.raises(SourceError, match="silent"),
        ):
            reader._stall = 1.0  # now, as it is not to be given up before it stands still
            reader.read(0, 512)


class Late:
    """A connection whose server says its word while v2v stands still: in the first poll."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.waits = 0.0, True
        monkeypatch.setattr(nbd_client, "time", SimpleNamespace(monotonic=lambda: self.now))

    def poll(self, milliseconds: int) -> int:
        if self.now == 0.0:
            self.now = 100.0
            return 0
        self.waits = False
        return 1

    def aio_is_connecting(self) -> bool:
        return self.waits

    def aio_command_completed(self, command: int) -> bool:
        return not self.waits


def test_what_was_said_while_we_stood_still_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process may be stopped for longer than a server may be silent."""
    nbd_client.wait(Late(monkeypatch), 1, Cancel(), stall=10.0)  # type: ignore[arg-type]
    nbd_client._shake_hands(Late(monkeypatch), Cancel(), seconds=10.0)  # type: ignore[arg-type]


def test_extents_of_a_sparse_disk(run: Run) -> None:
    params = ["size=5G", "data= @1048576 0x1 @2097152 0x1"]
    with nbdkit.serve("data", params, run=run, name="d") as socket:
        found = list(nbd_client.extents(nbd_client.describe(socket)))
    assert [e.zero for e in found] == [True, False, True, False, True]
    assert (found[1].offset, found[3].offset, found[-1].end) == (MiB, 2 * MiB, 5 * GiB)


def test_a_server_without_block_status_is_all_data(run: Run) -> None:
    with nbdkit.serve("null", ["5G"], run=run, name="n", filters=["noextents"]) as socket:
        found = list(nbd_client.extents(nbd_client.describe(socket)))
    assert found == [Extent(0, 5 * GiB)]


def test_failing_block_status_is_taken_for_data(run: Run) -> None:
    params = ["size=1M", "error-extents=EIO", "error-extents-rate=100%"]
    with nbdkit.serve("null", params, run=run, name="n", filters=["error"]) as socket:
        assert list(nbd_client.extents(nbd_client.describe(socket))) == [Extent(0, MiB)]


def test_cancel_interrupts_a_server_that_tells_no_extents(run: Run) -> None:
    cancel = Cancel()
    params = ["1M", "delay-extents=3600"]
    with nbdkit.serve("memory", params, run=run, name="n", filters=["delay"]) as socket:
        endpoint = nbd_client.describe(socket)
        timer = threading.Timer(0.1, cancel.cancel)
        timer.start()
        with pytest.raises(Cancelled):
            list(nbd_client.extents(endpoint, cancel=cancel))
        timer.join()


def answers(monkeypatch: pytest.MonkeyPatch, *replies: list[tuple[int, int]]) -> list[Extent]:
    """The extents of a disk of 8 MiB whose server gives these replies, then nothing."""
    left = list(replies)
    monkeypatch.setattr(nbd_client, "_status", lambda *_: left.pop(0) if left else [])

    class Handle:
        def can_meta_context(self, name: str) -> bool:
            return True

    endpoint = nbd_client.Endpoint("nbd://x", 8 * MiB)
    return list(nbd_client.extents(endpoint, Handle()))  # type: ignore[arg-type]


def test_short_and_long_replies(monkeypatch: pytest.MonkeyPatch) -> None:
    found = answers(monkeypatch, [(MiB, 3)], [(MiB, 3), (MiB, 0)], [(99 * MiB, 2)])
    assert found == [
        Extent(0, 2 * MiB, True),
        Extent(2 * MiB, MiB, False),
        Extent(3 * MiB, 5 * MiB, True),
    ]


def test_empty_replies_end(monkeypatch: pytest.MonkeyPatch) -> None:
    assert answers(monkeypatch, [(MiB, 3)]) == [
        Extent(0, MiB, True),
        Extent(MiB, 7 * MiB, False),
    ]


def test_hole_that_is_not_zero_is_data(monkeypatch: pytest.MonkeyPatch) -> None:
    assert answers(monkeypatch, [(8 * MiB, 1)]) == [Extent(0, 8 * MiB, False)]


def test_no_server(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="No such file") as caught:
        nbd_client.describe(tmp_path / "none")
    assert caught.value.id == "nbd-unreachable"


def test_cancel_ends_a_slow_handshake(run: Run) -> None:
    cancel = Cancel()
    params = ["1M", "delay-open=60"]
    with nbdkit.serve("memory", params, run=run, name="slow", filters=["delay"]) as socket:
        timer = threading.Timer(0.1, cancel.cancel)
        timer.start()
        with pytest.raises(Cancelled):
            nbd_client.describe(socket, cancel=cancel)
        timer.join()
        with pytest.raises(SourceError, match="no answer"):
            nbd_client.describe(socket, seconds=0.1)


def test_a_cancelled_handshake_does_not_keep_the_server_waiting(tmp_path: Path) -> None:
    """nbdkit does not end before its clients have left; the error's traceback keeps the handle."""
    cancel = Cancel()
    with socket.socket(socket.AF_UNIX) as mute:
        mute.bind(str(tmp_path / "s"))
        mute.listen()
        accepted: list[socket.socket] = []

        def accept_and_cancel() -> None:
            accepted.append(mute.accept()[0])
            cancel.cancel()

        thread = threading.Thread(target=accept_and_cancel)
        thread.start()
        with pytest.raises(Cancelled) as caught:
            nbd_client.describe(tmp_path / "s", cancel=cancel)
        thread.join()
        (connection,) = accepted
        connection.settimeout(60)
        with connection:
            assert connection.recv(1) == b""  # hung up
        assert caught.value.__traceback__ is not None


def test_the_servers_last_words_are_the_error(run: Run) -> None:
    with (
        pytest.raises(ToolError, match="No such file"),
        nbdkit.serve("file", ["file=/none"], run=run, name="x"),
    ):
        pass
    assert "No such file" in (run.folder / "log" / "x.log").read_text()
    assert list(run.tmp.iterdir()) == []


def test_a_read_only_server_refuses_writes(run: Run) -> None:
    import nbd

    with nbdkit.serve("memory", ["1M"], run=run, name="m") as socket:
        handle = nbd_client.connect(nbd_client.describe(socket))
        handle.set_strict_mode(0)
        with pytest.raises(nbd.Error):
            handle.pwrite(b"x", 0)
        handle.shutdown()


def test_flush_reaches_a_writable_server(run: Run) -> None:
    with nbdkit.serve("memory", ["1M"], run=run, name="m", read_only=False) as socket:
        endpoint = nbd_client.describe(socket, read_only=False)
        assert not endpoint.read_only
        nbd_client.flush(endpoint)


def test_qemu_img_overwrites_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a,b:c"
    qemu_img.create(path, DiskFormat.QCOW2, MiB, options={"cluster_size": "4096"})
    assert qemu_img.virtual_size(path, DiskFormat.QCOW2) == MiB
    before = path.read_bytes()
    with pytest.raises(TargetError) as caught:
        qemu_img.create(path, DiskFormat.QCOW2, 2 * MiB)
    assert caught.value.id == "image-exists"
    assert path.read_bytes() == before


def test_qemu_img_leaves_nothing_when_it_fails(tmp_path: Path) -> None:
    with pytest.raises(process.ToolError):
        qemu_img.create(tmp_path / "a", DiskFormat.QCOW2, MiB, options={"no_such": "1"})
    assert list(tmp_path.iterdir()) == []


def test_values_with_commas_reach_qemu(tmp_path: Path, run: Run) -> None:
    path = tmp_path / "a,driver=raw,b"
    qemu_img.create(path, DiskFormat.QCOW2, MiB)
    image = qemu_nbd.image_options(path, DiskFormat.QCOW2)
    with qemu_nbd.serve(image, run=run, name="q") as socket:
        assert nbd_client.describe(socket).size == MiB


def test_a_flush_that_fails_names_the_server(run: Run, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text(
        """case $1 in
get_size) echo 1M ;;
pread) dd if=/dev/zero count=$3 iflag=count_bytes 2>&- ;;
can_write|can_flush) exit 0 ;;
flush) echo ENOSPC no room >&2; exit 1 ;;
*) exit 2 ;;
esac
"""
    )
    script.chmod(0o755)
    with nbdkit.serve("sh", [str(script)], run=run, name="s", read_only=False) as socket:
        endpoint = nbd_client.describe(socket, read_only=False)
        with pytest.raises(SourceError, match="No space left") as caught:
            nbd_client.flush(endpoint)
    assert caught.value.id == "nbd-flush"
