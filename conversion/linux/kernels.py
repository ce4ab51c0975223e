"""The kernels of a guest, the drivers each has, and which one will boot."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from conversion.actions import Action, EditFile
from conversion.guest import Guest
from conversion.linux import grub
from conversion.linux.modules import Modules, parse_modules
from conversion.linux.versions import version_key
from v2v.errors import GuestError
from v2v.types import BlockBus, Change, NetModel

# Drivers that kernels without modules.builtin may have built in: the option that tells.
CONFIG = {
    "virtio": "CONFIG_VIRTIO",
    "virtio_ring": "CONFIG_VIRTIO",
    "virtio_pci": "CONFIG_VIRTIO_PCI",
    "virtio_blk": "CONFIG_VIRTIO_BLK",
    "virtio_scsi": "CONFIG_SCSI_VIRTIO",
    "virtio_net": "CONFIG_VIRTIO_NET",
    "virtio_balloon": "CONFIG_VIRTIO_BALLOON",
    "virtio_rng": "CONFIG_HW_RANDOM_VIRTIO",
    "vmw_vsock_virtio_transport": "CONFIG_VIRTIO_VSOCKETS",
    "ahci": "CONFIG_SATA_AHCI",
    "ata_piix": "CONFIG_ATA_PIIX",
    "sd_mod": "CONFIG_BLK_DEV_SD",
    "e1000": "CONFIG_E1000",
    "e1000e": "CONFIG_E1000E",
    "8139cp": "CONFIG_8139CP",
}

# The disk buses in the order of our liking, with the drivers each needs.
BUS_DRIVERS: dict[BlockBus, tuple[str, ...]] = {
    BlockBus.VIRTIO_BLK: ("virtio_pci", "virtio_blk"),
    BlockBus.VIRTIO_SCSI: ("virtio_pci", "virtio_scsi", "sd_mod"),
    BlockBus.SATA: ("ahci", "sd_mod"),
    BlockBus.IDE: ("ata_piix", "sd_mod"),
}
NET_DRIVERS: dict[NetModel, tuple[str, ...]] = {
    NetModel.VIRTIO: ("virtio_pci", "virtio_net"),
    NetModel.E1000E: ("e1000e",),
    NetModel.E1000: ("e1000",),
    NetModel.RTL8139: ("8139cp",),
}


@dataclass(frozen=True, slots=True)
class Kernel:
    """An installed kernel. Paths are the guest's."""

    version: str  # its release: 6.1.0-18-amd64
    image: str
    initramfs: str | None
    folder: str  # of its modules
    modules: Modules
    package: str | None = None

    def has(self, driver: str) -> bool:
        return self.modules.has(driver)

    def has_all(self, drivers: Iterable[str]) -> bool:
        return all(map(self.has, drivers))

    @property
    def debug(self) -> bool:
        return self.version.endswith(("-dbg", "-debug"))


def kernel_versions(image_paths: Iterable[str]) -> dict[str, str]:
    """Kernel releases and their images, from the names in /boot; the newest first."""
    found: dict[str, str] = {}
    for path in image_paths:
        match = re.fullmatch(r"/boot/vmlinu[xz]-([\w.+~-]+)", path)
        if match and not match[1].endswith((".old", ".bak", ".dpkg-new", ".dpkg-tmp")):
            found.setdefault(match[1], path)
    return dict(sorted(found.items(), key=lambda item: version_key(item[0]), reverse=True))


def built_in(config: str) -> set[str]:
    """The drivers of CONFIG that a kernel configuration builds in."""
    inside = set(re.findall(r"(?m)^(CONFIG_\w+)=y$", config))
    return {driver for driver, name in CONFIG.items() if name in inside}


def best_bus(kernel: Kernel, preferred: str) -> BlockBus | None:
    """The disk bus to use with a kernel: the preferred one if it can, else the best it can."""
    order = sorted(BUS_DRIVERS, key=lambda bus: bus != preferred)
    return next((bus for bus in order if kernel.has_all(BUS_DRIVERS[bus])), None)


def best_net(kernel: Kernel) -> NetModel:
    return next((m for m, d in NET_DRIVERS.items() if kernel.has_all(d)), NetModel.RTL8139)


def choose(kernels: Iterable[Kernel], booted: str | None, preferred: str) -> Kernel | None:
    """The kernel that boots by default, unless only another one can use virtio disks.

    kernels: the default one first, then the newest first; they may be made as they are asked for.
    None when none can use any disk that QEMU has.
    """
    usable: list[tuple[bool, bool, Kernel]] = []
    for kernel in kernels:
        bus = best_bus(kernel, preferred)
        slow = bus not in (BlockBus.VIRTIO_BLK, BlockBus.VIRTIO_SCSI)
        if kernel.version == booted and not slow:
            return kernel
        if bus is not None:
            usable.append((slow, kernel.debug, kernel))
    return min(usable, key=lambda item: item[:2])[2] if usable else None


# In the guest -------------------------------------------------------------------------------------


def load_kernel(guest: Guest, version: str, image: str) -> Kernel:
    """Read what is known of one kernel; once per guest."""
    key = f"kernel {version}"
    if key not in guest.facts:
        guest.facts[key] = _load_kernel(guest, version, image)
    kernel: Kernel = guest.facts[key]
    return kernel


def _load_kernel(guest: Guest, version: str, image: str) -> Kernel:
    folder = f"/lib/modules/{version}"
    builtin = guest.read_text(f"{folder}/modules.builtin")
    config = guest.read_text(f"/boot/config-{version}") or ""
    dep = guest.read_text(f"{folder}/modules.dep") or ""
    modules = parse_modules(dep, builtin or "", built_in(config))
    package = next(
        (
            name
            for name in (f"linux-image-{version}", f"linux-image-unsigned-{version}")
            if name in guest.packages
        ),
        None,
    )
    return Kernel(version, image, find_initramfs(guest, version), folder, modules, package)


def find_initramfs(guest: Guest, version: str) -> str | None:
    names = (f"/boot/initrd.img-{version}", f"/boot/initramfs-{version}.img")
    return next((p for p in names if guest.g.is_file(p, followsymlinks=True)), None)


def installed_kernels(guest: Guest) -> Iterable[Kernel]:
    """The kernel that boots by default first, then the newest first; read as they are asked for."""
    versions = _versions(guest)
    booted = booted_version(guest)
    order = sorted(versions, key=lambda version: version != booted)
    return (load_kernel(guest, version, versions[version]) for version in order)


def _versions(guest: Guest) -> dict[str, str]:
    if "kernels" not in guest.facts:
        images = guest.glob("/boot/vmlinu[xz]-*")
        # What dpkg's list of a package names but /boot does not have is no kernel one can boot.
        guest.facts["kernels"] = kernel_versions(images)
    versions: dict[str, str] = guest.facts["kernels"]
    return versions


def booted_version(guest: Guest) -> str | None:
    """The release of the kernel that the boot loader starts by default; None if it does not say."""
    entry = grub.booted_entry(guest)
    if entry is None:
        return None
    versions = _versions(guest)
    name = entry.kernel.rsplit("/", 1)[-1]
    match = re.fullmatch(r"vmlinu[xz]-(.+)", name)
    if match is None:  # /vmlinuz and /boot/vmlinuz are links that the kernel's package keeps
        match = re.search(r"vmlinu[xz]-([^/]+)$", _link_target(guest, entry.kernel))
    return match[1] if match and match[1] in versions else None


def _link_target(guest: Guest, path: str) -> str:
    for candidate in (path, f"/boot{path}"):
        if guest.g.is_symlink(candidate):
            target: str = guest.g.readlink(candidate)
            return target
    return ""


def chosen_kernel(guest: Guest) -> Kernel:
    """The kernel that the converted guest will boot. GuestError when none can."""
    if "chosen kernel" not in guest.facts:
        booted = booted_version(guest) or next(iter(_versions(guest)), None)
        kernel = choose(installed_kernels(guest), booted, guest.options.block_bus)
        if kernel is None:
            raise _no_kernel(guest)
        guest.facts["chosen kernel"] = kernel
    chosen: Kernel = guest.facts["chosen kernel"]
    return chosen


def _no_kernel(guest: Guest) -> GuestError:
    versions = _versions(guest)
    if not versions:
        return GuestError(
            f"no Linux kernel is installed in the guest ({guest.os.product}): /boot has no vmlinuz",
            id="guest-no-kernel",
            hint="is another disk of the VM missing, or another --root meant?",
        )
    return GuestError(
        f"no kernel of the guest has a driver for a disk that KVM offers "
        f"(looked at {', '.join(versions)})",
        id="guest-no-disk-driver",
        hint="install a kernel with virtio drivers in the source VM, then convert it again",
    )


def choose_kernel(guest: Guest) -> Iterable[Action]:
    """Step: let the boot loader start the chosen kernel, if it would start another."""
    kernel = chosen_kernel(guest)
    booted = booted_version(guest)
    if booted is None:
        guest.warn(
            f"the boot loader's configuration does not tell which kernel it starts; "
            f"{kernel.version} is assumed",
            id="bootloader-unknown",
        )
        return
    if booted == kernel.version:
        return
    why = f"{booted}, the default until now, has no driver for a virtio disk"
    entry = _entry_of(guest, kernel)
    if entry is None:
        guest.warn(
            f"{why}, and the boot menu has no entry for {kernel.version}",
            id="kernel-not-default",
            hint=f"choose {kernel.version} in the boot menu of the converted guest",
        )
        return
    change = Change(f"Made {kernel.version} the kernel that boots by default", why)
    yield from default_actions(guest, entry, change)


def _entry_of(guest: Guest, kernel: Kernel) -> grub.MenuEntry | None:
    for path in grub.menu_files(guest):
        text = guest.read_text(path) or ""
        parse = grub.legacy_entries if path == grub.MENU_LST else grub.menu_entries
        for entry in parse(text):
            if entry.kernel.endswith(kernel.image.rsplit("/", 1)[-1]):
                return entry
    return None


def default_actions(guest: Guest, entry: grub.MenuEntry, change: Change) -> Iterable[Action]:
    for path in grub.menu_files(guest):
        where = Change(change.what, change.why, path)
        if path == grub.MENU_LST:
            yield EditFile(path, lambda text: grub.set_legacy_default(text, entry.path), where)
        else:
            yield EditFile(path, lambda text: grub.set_default(text, entry.path), where)
    if guest.exists(grub.DEFAULT_GRUB):
        where = Change(change.what, change.why, grub.DEFAULT_GRUB)
        yield EditFile(
            grub.DEFAULT_GRUB, lambda text: grub.set_default_setting(text, entry.path), where
        )
