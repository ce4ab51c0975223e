"""What describes a guest in a storage domain: a .meta file beside each volume, and the OVF."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from v2v.hardware import Hardware
from v2v.outputs import _files
from v2v.outputs._ovirt import ownership
from v2v.outputs._ovirt.layout import Layout, Volume
from v2v.outputs._ovirt.meta import volume_meta
from v2v.outputs._ovirt.ovf import Flavour, ovf_xml
from v2v.outputs._ovirt.places import OvfDisk
from v2v.types import TargetDisk


def describe(
    hardware: Hardware,
    disks: Sequence[TargetDisk],
    layout: Layout,
    flavour: Flavour,
    *,
    sparse: bool,
) -> None:
    """Write it under working names. The disks are complete."""
    now = time.time()
    described = [
        _ovf_disk(disk, volume, layout, sparse=sparse)
        for disk, volume in zip(disks, layout.volumes, strict=True)
    ]
    for one, volume in zip(described, layout.volumes, strict=True):
        _files.write_file(volume.working_meta, volume_meta(one, seconds=int(now)), 0o600)
    when = datetime.fromtimestamp(now, UTC)
    content = ovf_xml(hardware, described, flavour, vm=layout.vm, when=when)
    _files.write_file(layout.working_ovf, content, 0o600)


def hand_over(layout: Layout) -> bool:
    """Give everything to VDSM, durably; False if that is not ours to do."""
    for volume in layout.volumes:
        ownership.give(volume.working, ownership.DISK_MODE)
        ownership.give(volume.working_meta, ownership.FILE_MODE)
        _files.sync_file(volume.working_meta)
    ownership.give(layout.working_ovf, ownership.FILE_MODE)
    _files.sync_file(layout.working_ovf)
    for folder in layout.new_folders:
        ownership.give(folder, ownership.FOLDER_MODE)
    return ownership.is_given(layout.working_ovf)


def stored(path: Path) -> int:
    """Bytes that a file takes, or all of a folder's."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.lstat().st_blocks * 512 for file in files)


def _ovf_disk(disk: TargetDisk, volume: Volume, layout: Layout, *, sparse: bool) -> OvfDisk:
    _files.sync_file(volume.working)  # what it takes is known only then
    return OvfDisk(
        image=volume.image,
        volume=volume.volume,
        size=disk.size,
        used=stored(volume.working),
        format=disk.format,
        sparse=sparse,
        storage=layout.storage,
    )
