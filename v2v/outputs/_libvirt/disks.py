"""The guest's disks while they are made: by each of the ways, and undone again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from v2v import disk_sinks, events, nbd_client, nbdkit
from v2v.copy.bandwidth import Bandwidth
from v2v.copy.engine import Shared, copy_disk
from v2v.copy.progress import Progress, Standing
from v2v.copy.sinks import FileSink, Sink
from v2v.errors import TargetError
from v2v.journal import sync_folder
from v2v.libvirt_connection import LibvirtHost, ask
from v2v.output import copy_options, forget_progress
from v2v.outputs import _files, _images
from v2v.outputs._images import Shape
from v2v.outputs._libvirt import made
from v2v.outputs._libvirt.domain import domain_uuid, lookup
from v2v.outputs._libvirt.facts import find_pool, refresh, volume_length
from v2v.outputs._libvirt.sink import VolumeSink
from v2v.outputs._libvirt.volumes import INODES, MAKING, VOLUMES, Volume, Way, known_volumes
from v2v.run import BANDWIDTH, Run

SENT = "libvirt-sent"  # journal, with the disk's number: this image is sent
HANDED_OVER = "libvirt-defined"  # journal: the domain is there, and the volumes are its own
MAKE_SECONDS = 3600.0  # some filesystems can only set space aside by writing it


@dataclass(frozen=True, slots=True)
class Disks:
    """The disks of one job. libvirt is asked through `host`."""

    host: LibvirtHost
    shape: Shape
    run: Run

    def make(self, volumes: Sequence[Volume]) -> None:
        """Blank, all of them. They are written down first."""
        self.run.journal.put(VOLUMES, tuple(volumes))
        for volume in volumes:
            if volume.is_image:
                _images.make(volume.disk, self.shape)
                sync_folder(Path(volume.working).parent)
            else:
                self._make_volume(volume, volume.size)
        self._check_seen([volume for volume in volumes if volume.way is Way.FILE])

    @contextmanager
    def open(self, volumes: Sequence[Volume]) -> Iterator[Sequence[Sink]]:
        with ExitStack() as stack:
            yield [self._open(volume, stack) for volume in volumes]

    def complete(self, volumes: Sequence[Volume]) -> None:
        """Everything under its final name, whole. Safe to repeat."""
        images = [one for one in volumes if one.is_image]
        if INODES not in self.run.journal:
            for volume in images:
                _images.complete(volume.disk, self.shape)
            for volume in volumes:
                if volume.block:
                    self._blank_tail(volume)
            inodes = {one.location: self._sync(one) for one in images}
            self.run.journal.put(INODES, inodes)
        self._publish([one for one in images if one.way is Way.FILE])
        for volume in images:
            if volume.way is Way.STAGED and f"{SENT}:{volume.index}" not in self.run.journal:
                self._send(volume)
        for volume in volumes:
            if volume.named_at_once:
                self._length(volume)  # it may have gone since it was written

    def discard(self) -> None:
        """Remove what the job made, unless it is a domain's."""
        volumes = known_volumes(self.run)
        published = INODES in self.run.journal
        if HANDED_OVER not in self.run.journal and (
            published or any(volume.named_at_once for volume in volumes)
        ):
            used = self._delete_volumes(volumes)
            if used is None:
                return
            self._unlink_published([one for one in volumes if one.location not in used])
        self._unlink(volumes)
        if HANDED_OVER not in self.run.journal:
            self._forget(volumes)

    # Making --------------------------------------------------------------------------------------

    def _make_volume(self, volume: Volume, length: int) -> None:
        def answer(libvirt: Any, connection: Any) -> None:
            made.make(libvirt, connection, volume, self.shape.allocation, self.run, length=length)

        ask(self.host, answer, self.run, seconds=MAKE_SECONDS)

    def _check_seen(self, volumes: Sequence[Volume]) -> None:
        """libvirt may run in another container, and mean another folder by that name."""
        unseen = self._unseen({(one.pool, Path(one.working).name) for one in volumes})
        if unseen:
            raise TargetError(
                f"-os {unseen[0][0]}: libvirt does not see what v2v writes into the pool's folder",
                id="target-storage",
                hint="is it on another host, or in a container? -oo upload sends the disks to it",
            )

    def _unseen(self, names: set[tuple[str, str]]) -> list[tuple[str, str]]:
        def answer(libvirt: Any, connection: Any) -> list[tuple[str, str]]:
            found: set[tuple[str, str]] = set()
            for name in {pool for pool, _ in names}:
                pool = find_pool(libvirt, connection, name)
                refresh(libvirt, pool)
                found.update((name, volume) for volume in pool.listVolumes())
            return sorted(names - found)

        return ask(self.host, answer, self.run) if names else []

    # Opening -------------------------------------------------------------------------------------

    def _open(self, volume: Volume, stack: ExitStack) -> Sink:
        if volume.is_image:
            sink = _images.open_sink(volume.index, volume.disk, self.shape, self.run)
            return stack.enter_context(sink)
        kept = _images.is_held(
            volume.index, f"{volume.pool}/{volume.name}", self.run, there=self._is_there(volume)
        )
        if not kept:
            forget_progress(self.run, [volume.index])
            self._make_volume(volume, volume.size)
        if volume.way is Way.DEVICE:
            return stack.enter_context(device_sink(volume))
        blank = not kept and not volume.block  # that one holds what was there before
        return stack.enter_context(self._upload(volume, is_zero=blank))

    def _is_there(self, volume: Volume) -> bool:
        def answer(libvirt: Any, connection: Any) -> bool:
            return made.find_unused(libvirt, connection, volume, self.run) is not None

        return ask(self.host, answer, self.run)

    @contextmanager
    def _upload(self, volume: Volume, *, is_zero: bool = False) -> Iterator[VolumeSink]:
        stall = copy_options(self.run).stall_timeout
        sink = VolumeSink(self.host, volume, is_zero=is_zero, stall=stall, cancel=self.run.cancel)
        try:
            yield sink
        finally:
            sink.close()

    # Completing ----------------------------------------------------------------------------------

    def _length(self, volume: Volume) -> int:
        """Bytes of the job's volume. TargetError where it is gone."""

        def answer(libvirt: Any, connection: Any) -> int:
            found = made.find_own(libvirt, connection, volume, self.run)
            if found is None:
                raise made.lost(volume)
            return volume_length(libvirt, found)

        return ask(self.host, answer, self.run)

    def _blank_tail(self, volume: Volume) -> None:
        """A logical volume is whole extents: behind the disk is what others have left there, such
        as the end of a RAID, which the guest would find at the end of its disk."""
        tail = self._length(volume) - volume.size
        opened = device_sink if volume.way is Way.DEVICE else self._upload
        if tail > 0:
            with opened(volume) as sink:
                sink.zero(volume.size, tail)
                sink.flush()

    def _sync(self, volume: Volume) -> int:
        try:
            return _files.sync_file(Path(volume.working))
        except OSError as exc:
            raise TargetError(
                f"cannot complete {volume.working}: {exc.strerror}",
                id="target-write",
                hint="when that is repaired, continue with `v2v resume`",
            ) from exc

    def _publish(self, volumes: Sequence[Volume]) -> None:
        pairs = [(Path(one.working), Path(one.location)) for one in volumes]
        inodes = self.run.journal.get(INODES, dict[str, int])
        _files.publish(pairs, inodes, force=False)
        self._unseen({(one.pool, one.name) for one in volumes})  # for libvirt's lists

    def _send(self, volume: Volume) -> None:
        """An image as it is, byte by byte: libvirt sees its format when it looks again."""
        self._make_volume(volume, Path(volume.working).stat().st_size)
        words = [f"file={volume.working}"]
        with (
            nbdkit.serve("file", words, run=self.run, name=f"send-{volume.index}") as image,
            self._upload(volume, is_zero=True) as sink,
        ):
            copy_disk(volume.index, nbd_client.describe(image), sink, self._shared())
        self.run.journal.put(f"{SENT}:{volume.index}", True)

    def _shared(self) -> Shared:
        """What was read of the source was verified when the image was copied."""

        def tell(standing: Standing) -> None:
            self.run.emit(events.CopyProgress, **asdict(standing))

        options = replace(copy_options(self.run), verify=0.0)
        bandwidth = Bandwidth(options.bandwidth, path=self.run.folder / BANDWIDTH)
        return Shared(options, cancel=self.run.cancel, progress=Progress(tell), bandwidth=bandwidth)

    # Undoing -------------------------------------------------------------------------------------

    def _delete_volumes(self, volumes: Sequence[Volume]) -> set[str] | None:
        """Gives the disks that domains use; None where one is the job's: all is its own, then."""
        identity = str(domain_uuid(self.run))

        def answer(libvirt: Any, connection: Any) -> set[str] | None:
            if lookup(libvirt, connection, identity) is not None:
                return None
            used = made.used_paths(libvirt, connection)
            for volume in volumes:
                if not volume.named_at_once or volume.location in used:
                    continue
                if found := made.find_own(libvirt, connection, volume, self.run):
                    made.delete(libvirt, found)
            return used

        return ask(self.host, answer, self.run)

    def _unlink_published(self, volumes: Sequence[Volume]) -> None:
        known = INODES in self.run.journal
        inodes = self.run.journal.get(INODES, dict[str, int]) if known else {}
        for volume in volumes:
            final = Path(volume.location)
            if volume.way is Way.FILE and _files.is_inode(final, inodes.get(str(final))):
                final.unlink()

    def _unlink(self, volumes: Sequence[Volume]) -> None:
        folders = {Path(one.working).parent for one in volumes if one.is_image}
        for folder in folders:
            for path in _files.leftovers(folder, self.run.job_id):
                path.unlink(missing_ok=True)

    def _forget(self, volumes: Sequence[Volume]) -> None:
        keys = [f"{key}:{volume.index}" for volume in volumes for key in (MAKING, SENT)]
        self.run.journal.drop([VOLUMES, INODES, *keys])


@contextmanager
def device_sink(volume: Volume) -> Iterator[FileSink]:
    """A logical volume, which holds anything before it is written. LVM's name of it is a link."""
    device = Path(volume.location).resolve()
    if not device.is_block_device():
        raise TargetError(
            f"-os {volume.pool}: this host has no device {volume.location}, which libvirt has made",
            id="target-storage",
            hint="is libvirt on another host, or in a container? -oo upload sends the disks to it",
        )
    with disk_sinks.raw_sink(
        device, volume.size, blank=False, sparse=True, drop_cache=True
    ) as sink:
        yield sink
