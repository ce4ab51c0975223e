"""-o glance: images of OpenStack, uploaded from anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from v2v import __version__
from v2v.hardware import Hardware, target_hardware
from v2v.outputs._limits import check_sectors
from v2v.outputs._openstack.booting import boot_command
from v2v.outputs._openstack.cloud import Cloud
from v2v.outputs._openstack.image_limits import check_count, check_format, check_room
from v2v.outputs._openstack.images import GLANCE, Images
from v2v.outputs._openstack.options import CloudOptions
from v2v.outputs._openstack.properties import gibibytes, image_properties, minimum_ram, named
from v2v.outputs._staged import StagedOptions, StagedOutput
from v2v.run import Run
from v2v.types import ConvertedGuest, GuestRef, Source, TargetDisk

HANDED_OVER = "glance-complete"  # journal: all images are there, and stay


@dataclass(frozen=True, kw_only=True)
class GlanceOptions(StagedOptions, CloudOptions):
    """Those of the cloud, and of files that are sent."""


class GlanceOutput(StagedOutput):
    """Images NAME, NAME-disk2, ... of the project. They are private."""

    mode = "glance"
    summary = "images of OpenStack (Glance), uploaded"
    Options = GlanceOptions

    options: GlanceOptions

    @cached_property
    def _cloud(self) -> Cloud:
        return Cloud(self.options, purpose=f"-o {self.mode}")

    def check_source(self, source: Source, run: Run) -> None:
        self.check_staging(run)
        self._cloud.log_in(GLANCE, run)
        images, numbers = Images(self._cloud, run), range(len(source.disks))
        own = {known for index in numbers if (known := images.known(index)) is not None}
        images.check_free([_name(source.name, index) for index in numbers], own)
        check_format(self.options.format, self._cloud, run)
        check_count(len(numbers) - len(own), self._cloud, run)

    def check_sizes(self, sizes: Sequence[int], used: Sequence[int], run: Run) -> None:
        check_sectors(sizes, mode=self.mode)
        check_room(used, self._cloud, run)
        super().check_sizes(sizes, used, run)

    def finalize(
        self, source: Source, guest: ConvertedGuest, disks: Sequence[TargetDisk], run: Run
    ) -> GuestRef:
        hardware, images = target_hardware(source, guest), Images(self._cloud, run)
        properties = {
            **image_properties(hardware, guest.os),
            "v2v_version": __version__,
            "v2v_job": run.job_id,
        }
        sent = [
            run.once(
                f"sent:{index}",
                f"Uploading disk {index + 1}/{len(disks)}",
                str,
                partial(self._send, index, disk, hardware, properties, images, run),
            )
            for index, disk in enumerate(disks)
        ]
        run.journal.put(HANDED_OVER, True)
        for index, image in enumerate(sent):
            images.rename(image, _name(hardware.name, index))
        self.unstage(run)
        finished = [
            replace(disk, location=f"glance:{image}", working=f"glance:{image}")
            for disk, image in zip(disks, sent, strict=True)
        ]
        return GuestRef(
            name=named(hardware.name, ""),
            disks=tuple(finished),
            metadata=sent[guest.boot_disk],
            start_hint=_start_hint(hardware, disks, sent),
        )

    def discard(self, disks: Sequence[TargetDisk], run: Run) -> None:
        super().discard(disks, run)
        images = Images(self._cloud, run)
        begun = _begun(images)
        if HANDED_OVER not in run.journal:
            images.remove(begun)
        else:
            run.warn(
                f"images {', '.join(begun)}: what is complete stays",
                id="target-left",
                hint="`openstack image delete` removes it",
            )

    def _send(
        self,
        index: int,
        disk: TargetDisk,
        hardware: Hardware,
        properties: dict[str, str],
        images: Images,
        run: Run,
    ) -> str:
        """Under a working name: the final ones are for guests that are all there."""
        attributes: dict[str, Any] = {
            "name": f"v2v-{run.job_id}-disk{index + 1}",
            "disk_format": str(disk.format),
            "container_format": "bare",
            "visibility": "private",
            "min_disk": gibibytes(disk.size),
            "min_ram": minimum_ram(hardware),
        }
        return images.send(index, Path(disk.working), attributes, properties)


def _begun(images: Images) -> list[str]:
    """The images that the job may have begun to make."""
    found: list[str] = []
    while (known := images.known(len(found))) is not None:
        found.append(known)
    return found


def _name(guest: str, index: int) -> str:
    return named(guest, f"-disk{index + 1}" if index else "")


def _start_hint(hardware: Hardware, disks: Sequence[TargetDisk], images: Sequence[str]) -> str:
    """Nova copies the disk to boot from to its host, and makes volumes of the others."""
    others = [
        f"uuid={image},source_type=image,destination_type=volume,volume_size={gibibytes(disk.size)}"
        for index, (disk, image) in enumerate(zip(disks, images, strict=True))
        if index != hardware.boot_disk
    ]
    return boot_command(hardware, f"--image {images[hardware.boot_disk]}", others)
