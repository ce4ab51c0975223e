"""The suite that every output runs. Subclass OutputSuite in test_outputs.py and say how to make it.

Sources are real: files with random data and holes, served by nbdkit.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from v2v import nbd_client, nbdkit, process
from v2v.cancel import Cancel
from v2v.copy.digests import Digests
from v2v.copy.engine import DiskCopy, Shared, copy_disk, measure
from v2v.copy.ledger import Ledger
from v2v.copy.progress import Progress
from v2v.endpoint import Endpoint
from v2v.errors import Cancelled
from v2v.extents import clip, data_bytes
from v2v.job import CopyOptions
from v2v.output import Output, ledger_path
from v2v.run import Run
from v2v.types import (
    BlockBus,
    ConvertedGuest,
    CopyResult,
    DiskFormat,
    Firmware,
    GuestCaps,
    GuestOS,
    GuestRef,
    KiB,
    Machine,
    MiB,
    NetModel,
    Nic,
    Source,
    SourceDisk,
    TargetDisk,
)

SIZES = (6 * MiB + 4 * KiB, 3 * MiB + 512)  # neither is a whole number of requests or clusters
GUEST = ConvertedGuest(
    os=GuestOS("linux", "debian", "12", "Debian GNU/Linux 12", "x86_64"),
    firmware=Firmware.BIOS,
    root="/dev/sda1",
    boot_disk=0,
    caps=GuestCaps(BlockBus.VIRTIO_BLK, NetModel.VIRTIO, Machine.Q35),
    nics=(Nic(mac="52:54:00:12:34:56"),),
)


def write_random_disk(path: Path, size: int, seed: int) -> bytes:
    """Data and holes, on and off cluster boundaries; gives the content."""
    chance = random.Random(seed)
    with path.open("wb") as file:
        file.truncate(size)
        for start in range(0, size, 256 * KiB):
            if chance.random() < 0.6:
                offset = start + 4 * KiB * chance.randrange(32)
                length = min(4 * KiB * chance.randrange(1, 96), size - offset)
                file.seek(offset)
                file.write(chance.randbytes(max(length, 0)))
    return path.read_bytes()


class OutputSuite:
    keeps = True  # what was copied can be read back
    renames = True  # disks get their final names when they are complete
    knows_blank = True  # a blank disk is known to be blank, so that nothing is zeroed

    def make(self, folder: Path) -> Output:
        """The output under test; all it keeps is in `folder`."""
        raise NotImplementedError

    def content(self, disk: TargetDisk) -> bytes:
        """What a finished disk holds, as its guest would read it."""
        raise NotImplementedError

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        folder = tmp_path / "target"
        folder.mkdir()
        return folder

    @pytest.fixture
    def output(self, folder: Path, need_tool) -> Output:
        for tool in ("nbdkit", "qemu-nbd", "qemu-img"):
            need_tool(tool)
        return self.make(folder)

    @pytest.fixture
    def images(self, tmp_path: Path) -> list[bytes]:
        return [
            write_random_disk(tmp_path / f"source-{i}", size, i) for i, size in enumerate(SIZES)
        ]

    @pytest.fixture
    def source(self, tmp_path: Path, images: list[bytes]) -> Source:
        disks = tuple(
            SourceDisk(str(tmp_path / f"source-{i}"), DiskFormat.RAW, size)
            for i, size in enumerate(SIZES)
        )
        return Source(name="Guest 1/2", input="disk", disks=disks, nics=GUEST.nics)

    @contextmanager
    def served(self, source: Source, run: Run) -> Iterator[Sequence[Endpoint]]:
        with ExitStack() as stack:
            yield [
                nbd_client.describe(
                    stack.enter_context(
                        nbdkit.serve("file", [disk.location], run=run, name=f"source-{i}")
                    )
                )
                for i, disk in enumerate(source.disks)
            ]

    def create(self, output: Output, source: Source, run: Run) -> tuple[TargetDisk, ...]:
        """As the coordinator does it: the result is journaled."""
        output.check_source(source, run)
        disks = output.create_disks(source, SIZES, run)
        run.journal.put("disks", disks)
        return run.journal.get("disks", tuple[TargetDisk, ...])

    def copy(
        self, output: Output, source: Source, disks: Sequence[TargetDisk], run: Run
    ) -> list[CopyResult]:
        with self.served(source, run) as endpoints, output.connect(disks, run) as sinks:
            assert len(sinks) == len(disks)
            results = []
            for i, (endpoint, sink) in enumerate(zip(endpoints, sinks, strict=True)):
                result = copy_disk(i, endpoint, sink, shared())
                run.journal.put(f"copied:{i}", result)
                results.append(result)
            return results

    def migrated(self, output: Output, source: Source, run: Run) -> GuestRef:
        disks = self.create(output, source, run)
        self.copy(output, source, disks, run)
        return output.finalize(source, GUEST, disks, run)

    # What every output does ----------------------------------------------------------------------

    def test_says_what_it_is(self, output: Output) -> None:
        assert output.mode
        assert output.summary
        assert output.request_size is None or output.request_size >= 4 * KiB

    def test_checks_change_nothing(self, output, source, folder, run) -> None:
        for _ in range(2):
            output.check_source(source, run)
            output.check_sizes(SIZES, [0] * len(SIZES), run)
            output.check_guest(GUEST, run)
        assert list(folder.iterdir()) == []

    def test_created_disks_survive_the_journal(self, output, source, run) -> None:
        disks = output.create_disks(source, SIZES, run)
        run.journal.put("disks", disks)
        assert run.journal.get("disks", tuple[TargetDisk, ...]) == disks
        assert [disk.size for disk in disks] == list(SIZES)

    def test_creating_again_makes_no_second_set(self, output, source, folder, run) -> None:
        first = output.create_disks(source, SIZES, run)
        names = sorted(folder.iterdir())
        assert output.create_disks(source, SIZES, run) == first
        assert sorted(folder.iterdir()) == names
        output.check_source(source, run)

    def test_there_is_a_usable_sink_for_each_disk(self, output, source, run) -> None:
        disks = self.create(output, source, run)
        with output.connect(disks, run) as sinks:
            assert len(sinks) == len(disks)
            for sink in sinks:
                assert sink.alignment >= 1
                assert sink.max_request >= 64 * KiB
                assert sink.workers >= 1
                assert sink.is_zero in (True, False)
                sink.flush()

    def test_the_copy_is_the_source(self, output, source, images, run) -> None:
        disks = self.create(output, source, run)
        with self.served(source, run) as endpoints:
            data = [measure(endpoint).data for endpoint in endpoints]
        results = self.copy(output, source, disks, run)
        assert [result.data for result in results] == data
        assert all(0 < result.zero < result.size for result in results)
        ref = output.finalize(source, GUEST, disks, run)
        assert len(ref.disks) == len(disks)
        if self.keeps:
            assert [self.content(disk) for disk in ref.disks] == images

    def test_finalize_can_be_repeated(self, output, source, folder, run) -> None:
        ref = self.migrated(output, source, run)
        before = {path.name: path.read_bytes() for path in folder.iterdir()}
        disks = run.journal.get("disks", tuple[TargetDisk, ...])
        assert self.make(folder).finalize(source, GUEST, disks, run) == ref
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before

    def test_no_working_name_is_left(self, output, source, folder, run) -> None:
        self.migrated(output, source, run)
        assert [path for path in folder.iterdir() if path.name.startswith(".")] == []

    def test_discard_removes_what_was_made_and_nothing_else(
        self, output, source, folder, run
    ) -> None:
        (folder / "Guest 1_2-sdz").write_text("mine")
        (folder / ".Guest 1_2-sda.other-job.part").write_text("mine")
        before = sorted(folder.iterdir())
        disks = self.create(output, source, run)
        self.copy(output, source, disks, run)
        for _ in range(2):
            output.discard(disks, run)
            assert sorted(folder.iterdir()) == before

    def test_discard_leaves_a_finished_guest(self, output, source, images, folder, run) -> None:
        ref = self.migrated(output, source, run)
        output.discard(run.journal.get("disks", tuple[TargetDisk, ...]), run)
        if self.keeps:
            assert [self.content(disk) for disk in ref.disks] == images

    def test_cancel_leaves_what_discard_removes(
        self, output, source, folder, run, monkeypatch
    ) -> None:
        monkeypatch.setattr(process, "STOP_SECONDS", 120.0)  # longer than a busy machine takes
        disks = self.create(output, source, run)
        cancel = Cancel()
        began = time.monotonic()
        with (
            pytest.raises(Cancelled),
            self.served(source, run) as endpoints,
            output.connect(disks, run) as sinks,
        ):
            sink = CancelAfter(sinks[0], 2, cancel)
            options = CopyOptions(request_size=64 * KiB)
            copy_disk(0, endpoints[0], sink, shared(cancel, options=options))
        assert time.monotonic() - began < process.STOP_SECONDS, "a server waited for its client"
        if self.renames:
            assert all(path.name.endswith(f".{run.job_id}.part") for path in folder.iterdir())
        output.discard(disks, run)
        assert list(folder.iterdir()) == []

    def test_a_half_copied_disk_is_copied_anew(self, output, source, images, folder, run) -> None:
        disks = self.create(output, source, run)
        with self.served(source, run) as endpoints, output.connect(disks, run) as sinks:
            result = copy_disk(0, endpoints[0], sinks[0], shared())
            run.journal.put("copied:0", result)
            garbage = memoryview(os.urandom(64 * KiB))
            sinks[1].write(1 * MiB, garbage)
            sinks[1].flush()
        again = self.make(folder)
        again.check_source(source, run)
        with self.served(source, run) as endpoints, again.connect(disks, run) as sinks:
            copy_disk(1, endpoints[1], sinks[1], shared())
        ref = again.finalize(source, GUEST, disks, run)
        if self.keeps:
            assert [self.content(disk) for disk in ref.disks] == images

    def test_what_a_ledger_tells_of_is_kept(self, output, source, images, run) -> None:
        """Of disk 1 a part is safe on the target, and another part was written by a killed job."""
        disks = self.create(output, source, run)
        ledger = Ledger(ledger_path(run, 0))
        with self.served(source, run) as endpoints, output.connect(disks, run) as sinks:
            whole = measure(endpoints[0])
            begun = DiskCopy(0, SIZES[0], sinks[0], shared(), ledger=ledger)
            begun.copy(endpoints[0], list(clip(whole, 0, 2 * MiB)))
            sinks[0].write(3 * MiB, memoryview(os.urandom(MiB)))
        again = self.make(folder_of(output))
        with self.served(source, run) as endpoints, again.connect(disks, run) as sinks:
            assert not sinks[0].is_zero or not self.keeps
            assert sinks[1].is_zero == self.knows_blank
            ledger = Ledger(ledger_path(run, 0))
            result = copy_disk(0, endpoints[0], sinks[0], shared(), ledger=ledger)
            assert result.resumed == 2 * MiB
            assert result.data == whole.data - data_bytes(clip(whole, 0, 2 * MiB))
            copy_disk(1, endpoints[1], sinks[1], shared())
        ref = again.finalize(source, GUEST, disks, run)
        if self.keeps:
            assert [self.content(disk) for disk in ref.disks] == images

    def test_what_was_copied_can_be_read_back(self, output, source, images, run) -> None:
        if not output.can_verify:
            return
        disks = self.create(output, source, run)
        with self.served(source, run) as endpoints, output.connect(disks, run) as sinks:
            options = CopyOptions(verify=1.0)
            with closing(Digests(None, SIZES[0])) as digests:
                result = copy_disk(
                    0, endpoints[0], sinks[0], shared(options=options), digests=digests
                )
            assert result.verified == 1.0 and result.checksum
            back = bytearray(MiB)
            sinks[0].read_back(2 * MiB, memoryview(back))
            assert back == images[0][2 * MiB : 3 * MiB]


class CancelAfter:
    """A sink that cancels the job at its n-th write."""

    def __init__(self, sink, writes: int, cancel: Cancel) -> None:
        self._sink = sink
        self._left = writes
        self._cancel = cancel

    def __getattr__(self, name: str):
        return getattr(self._sink, name)

    def write(self, offset: int, buffer: memoryview) -> None:
        self._sink.write(offset, buffer)
        self._count()

    @property
    def write_from(self):
        whole = self._sink.write_from  # of a streaming sink alone

        def write_from(reader, offset: int, length: int) -> None:
            whole(reader, offset, length)
            self._count()

        return write_from

    def _count(self) -> None:
        self._left -= 1
        if self._left == 0:
            self._cancel.cancel()


def shared(cancel: Cancel | None = None, *, options: CopyOptions | None = None) -> Shared:
    """What the disks of a copy share, when nobody watches."""
    progress = Progress(lambda standing: None)
    return Shared(options or CopyOptions(), cancel=cancel or Cancel(), progress=progress)


def folder_of(output: Output) -> Path:
    return getattr(output.options, "storage", Path())
