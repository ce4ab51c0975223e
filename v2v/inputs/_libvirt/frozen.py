"""Disks as an external snapshot left them: the images below those that the running VM writes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from shlex import quote

from v2v.errors import SourceError
from v2v.image import read_image
from v2v.inputs._domain.disks import DomainDisk
from v2v.inputs._images import Access, check_file
from v2v.inputs._libvirt.host import Vm

SNAPSHOT = "v2v"  # the name that our hints give to one


def frozen_disks(
    disks: Sequence[DomainDisk],
    vm: Vm,
    access: Access,
    volumes: Callable[[str, str], DomainDisk],
    *,
    local: bool,
) -> tuple[DomainDisk, ...]:
    """What lies one below the top of each disk, as the guest's disks.

    libvirt tells of it while the VM runs; else the image itself does, where it can be read.
    `local`: paths are of this host. Read-only disks stay as they are. SourceError when there is
    nothing below, or a template, or what is being changed, or if the disks are those of different
    moments.
    """
    found = []
    moments: dict[str, DomainDisk] = {}  # by the name of the snapshot
    for disk in disks:
        if disk.read_only:  # libvirt takes no snapshot of it
            found.append(disk)
            continue
        if disk.job:
            raise _block_job(disk, vm)
        top = volumes(disk.pool, disk.volume) if disk.kind == "volume" else disk
        below = disk.backing or (_below(top, access) if local else None)
        if below is None:
            raise _no_layer(disk, top, vm)
        if _made_by_snapshot(top, below, local=local):
            moments[Path(_place(top)).suffix] = disk
        elif not _allowed(below, access):
            raise _unsure(disk, top, below, vm)
        # Its checksum is that of what lies on top.
        found.append(replace(disk.at(below), checksum=None, odd_checksum=None))
    if len(moments) > 1:
        raise _different_moments(moments, vm)
    return tuple(found)


def snapshot_command(vm: Vm) -> str:
    """What makes every disk's image stay as it is, while the VM writes to new ones."""
    return f"{vm.virsh('snapshot-create-as')} --name {SNAPSHOT} --disk-only --atomic --no-metadata"


def _below(top: DomainDisk, access: Access) -> DomainDisk | None:
    if top.kind not in ("file", "block") or not top.path:
        return None
    path = Path(top.path)
    check_file(path)
    backing = read_image(path, top.format, allowed=access.allowed).backing
    if backing is None:
        return None
    file = backing.files[0]
    kind = "block" if file.is_block_device() else "file"
    return DomainDisk(kind=kind, path=str(file), driver=str(backing.format))


def _made_by_snapshot(top: DomainDisk, below: DomainDisk, *, local: bool) -> bool:
    """libvirt calls the new image as the old one, with the snapshot's name for the suffix.

    A clone of a template has an image below it, too, which is not the VM's at all.
    """
    upper, lower = Path(_place(top)), Path(_place(below))
    folders = [path.parent.resolve() if local else path.parent for path in (upper, lower)]
    return upper.stem == lower.stem and folders[0] == folders[1]


def _place(disk: DomainDisk) -> str:
    return disk.path or disk.name


def _allowed(below: DomainDisk, access: Access) -> bool:
    """The user says so: -io allow-backing names it, or a folder that it is in."""
    path = Path(below.path).resolve()
    return bool(below.path) and any(
        path.is_relative_to(allowed.resolve()) for allowed in access.allowed
    )


def _block_job(disk: DomainDisk, vm: Vm) -> SourceError:
    merges = disk.job == "active-commit"
    what = "merges the snapshot into the image below it" if merges else "copies its images"
    job = f"{vm.virsh('blockjob')} --path {quote(disk.target)}"
    return SourceError(
        f"{disk.label} of {vm.name} has a block job ({disk.job}), which {what}",
        id="libvirt-block-job",
        hint=f"wait until it is done ({job}), end it ({job} --pivot), and take a new snapshot: "
        f"{snapshot_command(vm)}",
    )


def _unsure(disk: DomainDisk, top: DomainDisk, below: DomainDisk, vm: Vm) -> SourceError:
    upper, lower = _place(top), _place(below)
    return SourceError(
        f"{disk.label} of {vm.name}: {lower} is below {upper}, but looks like a template of the "
        "VM rather than the VM before a snapshot",
        id="libvirt-snapshot-unsure",
        hint=f"take a snapshot: {snapshot_command(vm)}; if there is one, of other names than "
        f"libvirt gives, add -io allow-backing={quote(lower)}",
    )


def _different_moments(moments: dict[str, DomainDisk], vm: Vm) -> SourceError:
    told = ", ".join(f"{disk.label} of {suffix[1:]!r}" for suffix, disk in moments.items())
    return SourceError(
        f"the last snapshots of {vm.name}'s disks are different ones, {told}: "
        "the disks would not be those of one moment",
        id="libvirt-snapshots-differ",
        hint=f"take one of all disks: {snapshot_command(vm)}",
    )


def _no_layer(disk: DomainDisk, top: DomainDisk, vm: Vm) -> SourceError:
    hint = f"take one: {snapshot_command(vm)}; `virsh blockcommit` later merges it again"
    if vm.state is None:
        hint = f"{vm.name} is shut off: leave -io snapshot out"
    return SourceError(
        f"{disk.label} of {vm.name} has no snapshot: no image is below {_place(top)}",
        id="libvirt-no-snapshot",
        hint=hint,
    )
