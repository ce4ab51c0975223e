"""-o openstack: Cinder volumes, written as devices of the server that v2v runs in."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from v2v import __version__
from v2v.cancel import Cancel
from v2v.copy.sinks import FileSink, Sink
from v2v.disk_sinks import RAW_REQUEST, drops_cache
from v2v.errors import TargetError, V2VError
from v2v.hardware import Hardware, target_hardware
from v2v.output import Output, copy_options, data_size, is_begun, is_copied
from v2v.outputs._files import disk_suffix
from v2v.outputs._limits import check_sectors
from v2v.outputs._openstack import devices
from v2v.outputs._openstack.booting import boot_command
from v2v.outputs._openstack.cloud import PROJECT, Cloud
from v2v.outputs._openstack.limits import check_quota, check_type
from v2v.outputs._openstack.options import OpenStackOptions
from v2v.outputs._openstack.properties import image_properties, named
from v2v.outputs._openstack.server import check_server, server_id
from v2v.outputs._openstack.volume import DISK, JOB
from v2v.outputs._openstack.volumes import CINDER, Volumes
from v2v.run import Run
from v2v.texts import MAX_NAME, clean
from v2v.types import ConvertedGuest, DiskFormat, GuestRef, Source, TargetDisk

SERVICES = {**CINDER, "compute": "Nova"}


class OpenStackOutput(Output):
    """A volume for each disk, attached to this server while it is written."""

    mode = "openstack"
    aliases = ("osp", "rhosp")
    summary = "volumes of OpenStack (Cinder), written by a server there that v2v runs in"
    Options = OpenStackOptions
    request_size = RAW_REQUEST  # as raw files: a local device takes any; see v2v.disk_sinks
    bootable = False
    per_disk_storage = True

    options: OpenStackOptions

    @cached_property
    def _cloud(self) -> Cloud:
        return Cloud(self.options, purpose=f"-o {self.mode}")

    def check_source(self, source: Source, run: Run) -> None:
        self._cloud.log_in(SERVICES, run)
        check_server(server_id(self.options), self._cloud, run)
        for kind in {kind for n in range(len(source.disks)) if (kind := self._type(source, n))}:
            check_type(kind, self._cloud, run)
        volumes = Volumes(self._cloud, run)
        self._check_names(source, volumes, run)
        sizes = [disk.size or 0 for disk in source.disks]
        check_quota(sizes, volumes.own(), self._cloud, run)

    def check_sizes(self, sizes: Sequence[int], used: Sequence[int], run: Run) -> None:
        check_sectors(sizes, mode=self.mode)
        check_quota(sizes, Volumes(self._cloud, run).own(), self._cloud, run)

    def create_disks(
        self, source: Source, sizes: Sequence[int], run: Run
    ) -> tuple[TargetDisk, ...]:
        self.discard((), run)  # of a try that came to nothing
        self._cloud.note_project(run)
        volumes = Volumes(self._cloud, run)
        try:
            made = [
                volumes.create(
                    index,
                    size,
                    kind=self._type(source, index),
                    zone=self.options.zone,
                    guest=named(source.name, ""),
                ).id
                for index, size in enumerate(sizes)
            ]
        except BaseException:
            self._give_up(run)
            raise
        return tuple(
            TargetDisk(f"cinder:{volume}", volume, DiskFormat.RAW, size)
            for volume, size in zip(made, sizes, strict=True)
        )

    @contextmanager
    def connect(self, disks: Sequence[TargetDisk], run: Run) -> Iterator[Sequence[Sink]]:
        with ExitStack() as stack:
            stack.push(self._detaching(disks, run))
            paths = self._attached(disks, run)
            yield [
                self._sink(index, disk, path, stack, run)
                for index, (disk, path) in enumerate(zip(disks, paths, strict=True))
            ]

    def finalize(
        self, source: Source, guest: ConvertedGuest, disks: Sequence[TargetDisk], run: Run
    ) -> GuestRef:
        volumes, hardware = Volumes(self._cloud, run), target_hardware(source, guest)
        identifiers = [disk.working for disk in disks]
        # What was handed over, by a job that was killed then, is its new owner's: it may run.
        mine = [one for one in identifiers if volumes.get(one).is_temporary]
        volumes.detach(mine)  # of a job that was killed when all was copied
        if (boot := identifiers[guest.boot_disk]) in mine:
            volumes.make_bootable(boot, image_properties(hardware, guest.os))
        for index, volume in enumerate(identifiers):
            if volume in mine:
                volumes.hand_over(
                    volume,
                    name=_name(hardware, index),
                    description=f"disk {index + 1} of {named(hardware.name, '')[:200]}",
                    metadata=self._metadata(hardware, index, run),
                )
        return GuestRef(
            name=named(hardware.name, ""),
            disks=tuple(replace(disk, working=disk.location) for disk in disks),
            metadata=boot,
            start_hint=_start_hint(hardware, identifiers),
        )

    def discard(self, disks: Sequence[TargetDisk], run: Run) -> None:
        if PROJECT not in run.journal:
            return
        self._cloud.check_project(run)
        volumes = Volumes(self._cloud, run)
        own = [one for one in volumes.own() if one.status != "deleting"]
        if kept := [one for one in own if not one.is_temporary]:
            run.warn(
                f"{', '.join(f'{clean(one.name)} ({one.id})' for one in kept)}: what is complete "
                "stays",
                id="target-left",
                hint="`openstack volume delete` removes it",
            )
        volumes.remove([one.id for one in own if one.is_temporary])

    # Writing --------------------------------------------------------------------------------------

    def _attached(self, disks: Sequence[TargetDisk], run: Run) -> list[Path]:
        volumes, server = Volumes(self._cloud, run), server_id(self.options)
        for disk in disks:
            volumes.attach(disk.working, server)
        return [devices.find_device(self.options.by_id, disk.working, run) for disk in disks]

    def _detaching(self, disks: Sequence[TargetDisk], run: Run) -> Any:
        """What detaches at the end, also of a job that was cancelled."""

        def leave(kind: Any, error: BaseException | None, trace: Any) -> None:
            try:
                free = Volumes(self._cloud, _uncancelled(run))
                free.detach([disk.working for disk in disks])
            except V2VError as exc:
                if error is None:
                    raise
                run.warn(
                    f"a volume may still be attached: {exc.message}",
                    id="volume-attached",
                    hint=f"`v2v resume {run.job_id}` goes on; `v2v jobs discard` removes it",
                )

        return leave

    def _sink(
        self, index: int, disk: TargetDisk, device: Path, stack: ExitStack, run: Run
    ) -> FileSink:
        fd, length = stack.enter_context(devices.opened(device, disk.size))
        drop_cache = drops_cache(copy_options(run).page_cache, data_size(disk, index, run))
        sink = FileSink(
            fd,
            request_size=self.request_size,
            is_zero=False,  # not every storage erases what a volume of somebody else's left
            drop_cache=drop_cache,
            size=disk.size,
        )
        if length > disk.size and not is_copied(run, index) and not is_begun(run, index):
            sink.zero(disk.size, length - disk.size)
        return sink

    # Details --------------------------------------------------------------------------------------

    def _type(self, source: Source, index: int) -> str | None:
        return source.disks[index].target_storage or self.options.storage

    def _check_names(self, source: Source, volumes: Volumes, run: Run) -> None:
        wanted = {named(source.name, f"-{disk_suffix(n)}") for n in range(len(source.disks))}
        for one in volumes.all():
            if one.name in wanted and one.metadata.get(JOB) != run.job_id:
                raise TargetError(
                    f"Cinder: a volume {one.name} exists already ({one.id})",
                    id="target-exists",
                    hint="give the guest another name with -on",
                )

    def _metadata(self, hardware: Hardware, index: int, run: Run) -> dict[str, str]:
        found = {
            JOB: run.job_id,
            DISK: str(index),
            "v2v_version": __version__,
            "v2v_conversion_date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "v2v_guest_name": named(hardware.name, ""),
            "v2v_vm_generation_id": hardware.genid,
            "v2v_guest_id": self.options.guest_id,
        }
        return {key: word[:MAX_NAME] for key, word in found.items() if word}

    def _give_up(self, run: Run) -> None:
        """Remove what was made; the first error is the one to tell."""
        try:
            self.discard((), _uncancelled(run))
        except V2VError as exc:
            run.warn(
                f"not everything that was made is removed: {exc.message}",
                id="target-leftover",
                hint=f"`v2v jobs discard {run.job_id}` removes it",
            )


def _uncancelled(run: Run) -> Run:
    """To clean up, which goes on when the job is cancelled."""
    return run.part(cancel=Cancel())


def _name(hardware: Hardware, index: int) -> str:
    return named(hardware.name, f"-{disk_suffix(index)}")


def _start_hint(hardware: Hardware, volumes: Sequence[str]) -> str:
    others = [
        f"uuid={volume},source_type=volume,destination_type=volume"
        for index, volume in enumerate(volumes)
        if index != hardware.boot_disk
    ]
    return boot_command(hardware, f"--volume {volumes[hardware.boot_disk]}", others)
