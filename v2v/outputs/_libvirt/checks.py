"""What stands in a guest's way on a host, told before anything is copied."""

from __future__ import annotations

import os
from pathlib import Path
from shlex import quote

from v2v.disk_files import OTHER_GUEST_NAME, is_inode
from v2v.errors import TargetError
from v2v.libvirt_connection import LibvirtHost
from v2v.outputs._files import safe_name
from v2v.outputs._libvirt.capabilities import Capabilities
from v2v.outputs._libvirt.domain import domain_uuid
from v2v.outputs._libvirt.facts import Facts
from v2v.outputs._libvirt.volumes import INODES, is_own, known_volumes, pool_names, volume_names
from v2v.run import Run
from v2v.texts import clean
from v2v.types import BlockBus, ConvertedGuest, Firmware, Machine, Source

MAX_PORTS = 200  # of PCI Express for disks: libvirt numbers 255 buses, and other devices have some


def check_names(source: Source, facts: Facts, default: str, run: Run) -> None:
    """Refuse names that are taken: the domain's and the volumes'. The job's own are not."""
    name = safe_name(source.name)
    if facts.domain is not None and facts.domain != str(domain_uuid(run)):
        raise TargetError(
            f"{facts.uri} has a domain {name} already",
            id="target-exists",
            hint=OTHER_GUEST_NAME,
        )
    own = {(one.pool, one.name): one for one in known_volumes(run)}
    pools = [facts.pools[one] for one in pool_names(source, default)]
    for pool, volume in zip(pools, volume_names(source, pools), strict=True):
        mine = own.get((pool.name, volume))
        if mine is not None and is_own(mine, pool.volumes.get(volume), run):
            continue
        path = Path(pool.path) / volume
        unseen = facts.local and os.path.lexists(path)
        if (volume in pool.volumes or unseen) and not is_published(path, run):
            raise TargetError(
                f"the storage pool {pool.name} has a volume {volume} already",
                id="target-exists",
                hint=OTHER_GUEST_NAME + ", or choose another pool with -os",
            )


def is_published(path: Path, run: Run) -> bool:
    """Whether the job itself has given its file this name."""
    inodes = run.journal.get(INODES, dict[str, int]) if INODES in run.journal else {}
    return is_inode(path, inodes.get(str(path)))


def check_networks(source: Source, facts: Facts, run: Run, *, needed: bool) -> None:
    """A guest on a network that is not there can be defined, and does not start."""
    for kind, name in dict.fromkeys((nic.kind, nic.network) for nic in source.nics or ()):
        trouble = _trouble(kind, name, facts)
        if trouble is None:
            continue
        text, hint = trouble
        if needed:
            raise TargetError(text, id="target-network", hint=hint)
        run.warn(text, id="target-network", hint=f"before the guest is started: {hint}")


def _trouble(kind: str, name: str, facts: Facts) -> tuple[str, str] | None:
    """What is wrong, and what to do; None where all is well, or nobody can tell."""
    if kind == "bridge":
        if facts.bridges is None or name in facts.bridges:
            return None
        return (
            f"{facts.uri} has no bridge {clean(name)}",
            "make it there, or name another with --bridge; --network takes a network of libvirt's",
        )
    if facts.networks is None or facts.networks.get(name):
        return None
    if name in facts.networks:
        return (
            f"the network {clean(name)} of {facts.uri} is not active",
            f"`virsh net-start --network {quote(name)}` starts it",
        )
    return (
        f"{facts.uri} has no network {clean(name)}",
        "`virsh net-list --all` shows which there are: name one with --network, or a bridge with "
        "--bridge",
    )


def check_machine(
    source: Source | None, guest: ConvertedGuest, capabilities: Capabilities, host: LibvirtHost
) -> None:
    """Refuse a machine that the host cannot make, or with a firmware that it does not have."""
    if source is not None:
        _check_numbers(source, guest, capabilities, host)
    if guest.firmware is not Firmware.UEFI:
        return
    secure = source is not None and source.secure_boot
    offers = capabilities.has("os/firmware", "efi")
    if not offers or (secure and not capabilities.has("loader/secure", "yes")):
        kind = "UEFI firmware with secure boot" if secure else "UEFI firmware"
        raise TargetError(
            f"-oc {host.shown} has no {kind} for guests of {guest.caps.arch}",
            id="target-firmware",
            hint="install it there: apt-get install ovmf, or dnf install edk2-ovmf",
        )


def _check_numbers(
    source: Source, guest: ConvertedGuest, capabilities: Capabilities, host: LibvirtHost
) -> None:
    caps = guest.caps
    if source.vcpus > capabilities.vcpus:
        raise TargetError(
            f"{source.name} has {source.vcpus} processors; on -oc {host.shown} a guest of "
            f"{caps.machine} can have {capabilities.vcpus}",
            id="target-vcpus",
            hint="give the VM fewer processors at the source",
        )
    on_ports = caps.block_bus is BlockBus.VIRTIO_BLK and caps.machine is not Machine.I440FX
    if on_ports and len(source.disks) > MAX_PORTS:
        raise TargetError(
            f"{source.name} has {len(source.disks)} disks; on {caps.block_bus} a guest of "
            f"{caps.machine} can have {MAX_PORTS}",
            id="target-disk-count",
            hint="--block-driver virtio-scsi takes more",
        )
