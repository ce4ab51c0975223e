"""A guest's disks in an appliance, from launch to the check at the end: the verbs of conversion."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from conversion import boot, decrypt, filesystems, inspection, mounts, packages, space
from conversion.disk_head import DiskHead
from conversion.guest import Guest
from conversion.handle import start_appliance
from conversion.identify import identify_mounted
from conversion.inspection import Root, plain_device
from conversion.problems import Problems
from conversion.volumes import Volumes, find_volumes
from v2v.endpoint import Endpoint
from v2v.errors import GuestError
from v2v.job import ConversionOptions
from v2v.run import Run
from v2v.types import Firmware, GuestOS, Source


@dataclass
class Disks:
    """A guest's disks in a launched appliance, and what is known of them so far."""

    g: Any  # guestfs.GuestFS
    source: Source
    options: ConversionOptions
    run: Run
    heads: tuple[DiskHead, ...]
    problems: Problems
    volumes: Volumes
    errors: dict[str, GuestError] = field(default_factory=dict)  # by device, of the check
    roots: tuple[Root, ...] = ()

    @property
    def firmware(self) -> Firmware:
        return boot.firmware(self.source, self.heads)


@contextmanager
def open_disks(
    source: Source,
    endpoints: Sequence[Endpoint],
    options: ConversionOptions,
    run: Run,
    problems: Problems,
) -> Iterator[Disks]:
    """Launch the appliance and open what is encrypted; at the end, unmount and shut down."""
    keys = decrypt.parse_keys(options.keys)
    with start_appliance(endpoints, options, run) as appliance:
        with run.step("convert:launch", "Starting the appliance"):
            heads = boot.read_heads(endpoints)
            if doubt := boot.firmware_doubt(source, heads):
                problems.add(doubt)
            g = appliance.result()
        with run.step("convert:volumes", "Looking for filesystems"):
            volumes = find_volumes(g, len(endpoints), keys)
        yield Disks(g, source, options, run, heads, problems, volumes)


def check(disks: Disks) -> None:
    """Check the filesystems, repairing what is safe to repair."""
    with disks.run.step("convert:check", "Checking the guest's filesystems"):
        filesystems.refuse_if_asleep(disks.volumes, None, disks.problems)
        disks.errors = filesystems.check_volumes(disks.g, disks.volumes)


def find_root(disks: Disks) -> Root:
    """The root of the system to convert; refuses what we cannot convert."""
    with disks.run.step("convert:inspect", "Looking for operating systems"):
        disks.roots = inspection.find_roots(disks.g, disks.volumes)
        root = _choose(disks)
        filesystems.refuse_if_asleep(disks.volumes, root, disks.problems)
        if (error := refusal(root.os)) is not None:
            disks.problems.refuse(error)
    return root


def _choose(disks: Disks) -> Root:
    if not disks.roots and disks.errors:
        raise next(iter(disks.errors.values()))
    try:
        return inspection.choose_root(disks.roots, disks.options.root, disks.volumes.locked)
    except GuestError as exc:
        if not disks.roots:
            raise
        disks.problems.refuse(exc)
        return disks.roots[0]


def refusal(os: GuestOS) -> GuestError | None:
    """Why this system cannot be converted; None if it can."""
    from conversion import linux

    try:
        linux.check_supported(os)
    except GuestError as exc:
        return exc
    return None


def mount(disks: Disks, root: Root) -> Guest:
    """Mount the guest's filesystems as its fstab has them."""
    with disks.run.step("convert:mount", "Mounting the guest's filesystems"):
        mounted = mounts.mount_all(
            disks.g,
            root.device,
            disks.volumes,
            [disk.controller for disk in disks.source.disks],
            disks.heads,
            disks.errors,
            disks.problems,
        )
        return Guest(
            g=disks.g,
            source=disks.source,
            options=disks.options,
            run=disks.run,
            os=_identity(disks, root, mounted),
            root=root.device,
            mounts=mounted,
            firmware=disks.firmware,
            boot_disk=boot.boot_disk(disks.firmware, disks.heads, mounted),
            packages=packages.installed(disks.g),
            nics=disks.source.nics or (),
            findings=disks.problems.findings,
        )


def _identity(disks: Disks, root: Root, mounted: Mapping[str, str]) -> GuestOS:
    """What tells the system and its architecture may be on a /usr that is mounted only now."""
    if "/usr" not in mounted:
        return root.os
    os = identify_mounted(disks.g)
    if (error := refusal(os)) is not None:
        disks.problems.refuse(error)
    return os


def check_room(disks: Disks, guest: Guest) -> None:
    """Refuse a guest that cannot be written to, or is too full."""
    filesystems.warn_of_others(disks.errors, mounted_devices(guest), disks.problems)
    mounts.refuse_read_only(guest.g, disks.problems)
    space.refuse_full(guest.g, guest.mounts, disks.problems)


def trim(disks: Disks, guest: Guest, step: str, title: str) -> None:
    """Give free space back, so that it is neither read nor copied."""
    if guest.options.fstrim:
        with guest.run.step(step, title):
            filesystems.trim(guest.g, guest.mounts, disks.problems)


def unmount_and_check(disks: Disks, guest: Guest) -> None:
    """What was written must leave the filesystems in order."""
    with guest.run.step("convert:check-after", "Checking the filesystems again"):
        guest.g.umount_all()
        filesystems.check_again(guest.g, disks.volumes, mounted_devices(guest))


def mounted_devices(guest: Guest) -> set[str]:
    return {plain_device(device) for device in guest.mounts.values()}
