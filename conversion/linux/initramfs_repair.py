"""The initramfs: made able to mount the root from virtio disks, if it is not.

Rebuilding takes the guest's own tools many minutes in an appliance without KVM, and most guests
need nothing. So it is read first; what is missing is appended as one more archive, which the kernel
unpacks over the first; only an initramfs that we do not understand is rebuilt.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from conversion.actions import Action, Changes, EditFile, RunInGuest
from conversion.guest import Guest
from conversion.linux import devices
from conversion.linux.caps import release
from conversion.linux.cpio import Archive, CpioError, read_initramfs
from conversion.linux.initramfs import (
    INDEXES,
    Contents,
    Missing,
    add_module_lines,
    alignment,
    contents_of,
    drivers_for,
    extension,
    missing_modules,
    stale_files,
    tail_bytes,
    wanted_name,
)
from conversion.linux.kernels import Kernel, best_bus, best_net, chosen_kernel
from v2v.errors import GuestError
from v2v.types import Change, MiB

MAX_INITRAMFS = 1024 * MiB
SPARE = 4 * MiB  # left free on the filesystem that holds /boot
MODULES_FILE = "/etc/initramfs-tools/modules"


def repair(guest: Guest) -> Iterable[Action]:
    """Step: make the chosen kernel's initramfs able to mount the root."""
    kernel = chosen_kernel(guest)
    bus = best_bus(kernel, guest.options.block_bus)
    if bus is None:
        return
    wanted = drivers_for(bus, best_net(kernel), kernel.modules)
    why = f"the disk is now on {bus} and the kernel needs {', '.join(wanted) or 'no module'}"
    if guest.options.initramfs == "rebuild":
        yield from rebuild(guest, kernel, wanted, "a rebuild was asked for")
        return
    if kernel.initramfs is None:
        if wanted:
            yield from rebuild(guest, kernel, wanted, f"there is none, and {why}")
        return
    try:
        contents = contents_of(read(guest, kernel.initramfs), kernel.version)
    except CpioError as exc:
        yield from rebuild(guest, kernel, wanted, f"{kernel.initramfs} could not be read: {exc}")
        return
    if contents.last_is_lz4 and not _accepts_after_lz4(kernel.version):
        if missing_modules(contents, wanted):
            yield from rebuild(guest, kernel, wanted, why)
        return
    stale = stale_files(contents.archive, lambda: devices.device_map(guest))
    missing = Missing(missing_modules(contents, wanted), stale)
    if missing:
        yield Extend(kernel, contents, missing, _change(kernel.initramfs, missing, why))
    if missing.modules:
        yield from keep_modules(guest, missing.modules)


def _change(path: str, missing: Missing, why: str) -> Change:
    added = [*missing.modules, *missing.files]
    return Change(
        f"Added {', '.join(added)} to the initramfs",
        why if missing.modules else "it named disks as the source named them",
        path,
    )


def _accepts_after_lz4(version: str) -> bool:
    """Linux 5.12 learned to find what follows an lz4 stream (commit 2c484419efc0)."""
    return release(version) >= (5, 12)


def read(guest: Guest, path: str) -> Archive:
    """Read an initramfs of the guest; its bytes are parsed here, never run. Raises CpioError."""
    if guest.g.filesize(path) > MAX_INITRAMFS:
        raise CpioError(f"it is larger than {MAX_INITRAMFS // MiB} MiB")
    local = guest.run.tmp / "initramfs"
    try:
        guest.g.download(path, str(local))
        with local.open("rb") as file:
            return read_initramfs(file, wanted_name)
    finally:
        local.unlink(missing_ok=True)


@dataclass(frozen=True)
class Extend:
    """Append an archive to an initramfs: beside it first, then renamed over it."""

    kernel: Kernel
    contents: Contents
    missing: Missing
    change: Change

    def apply(self, guest: Guest) -> Changes:
        assert self.kernel.initramfs is not None  # noqa: S101 - there is no Extend without a file
        path = guest.g.realpath(self.kernel.initramfs)  # cp and mv would leave the guest's tree
        files = module_files(guest, self.kernel, self.missing.modules)
        entries = extension(
            self.contents, self.kernel.version, self.kernel.modules, self.missing, files
        )
        align = alignment(self.contents)
        size = guest.g.filesize(path)
        tail = tail_bytes(size, entries, compress=_can_gzip(guest, self.kernel), align=align)
        check_space(guest, path, size + len(tail))
        self._write(guest, path, size, tail)
        self._verify(guest, path)
        return (self.change,)

    def _write(self, guest: Guest, path: str, size: int, tail: bytes) -> None:
        local = guest.run.tmp / "initramfs-tail"
        temporary = f"{path}.v2v-new"
        try:
            local.write_bytes(tail)
            guest.g.rm_f(temporary)
            guest.g.cp_a(path, temporary)
            guest.g.upload_offset(str(local), temporary, size)
            guest.g.sync()
            guest.g.mv(temporary, path)
        finally:
            local.unlink(missing_ok=True)
            guest.g.rm_f(temporary)

    def _verify(self, guest: Guest, path: str) -> None:
        contents = contents_of(read(guest, path), self.kernel.version)
        absent = missing_modules(contents, self.missing.modules)
        if absent:
            raise GuestError(
                f"{path} in the guest lacks {', '.join(absent)} after they were added",
                id="initramfs-not-extended",
                hint="use --initramfs rebuild to let the guest's own tools make it",
            )


def module_files(guest: Guest, kernel: Kernel, names: Iterable[str]) -> dict[str, bytes]:
    """The modules' files and depmod's indexes, by path below the modules' folder."""
    names = tuple(names)
    if not names:
        return {}
    files = {}
    for path in [*(kernel.modules.files[name] for name in names), *INDEXES]:
        data = guest.read(f"{kernel.folder}/{path}", limit=64 * MiB)
        if data is not None:
            files[path] = data
    return files


def _can_gzip(guest: Guest, kernel: Kernel) -> bool:
    config = guest.read_text(f"/boot/config-{kernel.version}") or ""
    return "\nCONFIG_RD_GZIP=y\n" in config


def check_space(guest: Guest, path: str, needed: int) -> None:
    stat_fs = guest.g.statvfs(path)
    free = stat_fs["bavail"] * stat_fs["frsize"]
    if free < needed + SPARE:
        raise GuestError(
            f"/boot in the guest has {free // MiB} MiB free; a new initramfs needs "
            f"{(needed + SPARE) // MiB} MiB",
            id="guest-boot-space",
            hint="remove old kernels in the source VM, then convert it again",
        )


def rebuild(guest: Guest, kernel: Kernel, wanted: Iterable[str], why: str) -> Iterable[Action]:
    """Let the guest's own tools make the initramfs; takes minutes without KVM."""
    wanted = tuple(wanted)
    path = kernel.initramfs or f"/boot/initrd.img-{kernel.version}"
    change = Change("Rebuilt the initramfs with the guest's own tools", why, path)
    if guest.exists("/usr/sbin/update-initramfs"):
        yield from keep_modules(guest, wanted)
        verb = "-u" if kernel.initramfs else "-c"
        command: tuple[str, ...] = ("update-initramfs", verb, "-k", kernel.version)
    elif guest.exists("/usr/bin/dracut"):
        drivers = " ".join(wanted)
        command = ("dracut", "--force", "--add-drivers", drivers, path, kernel.version)
    else:
        guest.warn(
            f"the initramfs of {kernel.version} needs a rebuild ({why}), and the guest has neither "
            f"update-initramfs nor dracut",
            id="initramfs-no-tool",
        )
        return
    yield RunInGuest(
        (command,),
        change,
        fatal=True,
        failure_id="initramfs-rebuild-failed",
        hint="try `update-initramfs -u` in the source VM",
    )


def keep_modules(guest: Guest, names: Iterable[str]) -> Iterable[Action]:
    """Name the modules where the guest's own next update-initramfs reads them."""
    text = guest.read_text(MODULES_FILE)
    names = tuple(names)
    if text is None or add_module_lines(text, names) == text:
        return
    yield EditFile(
        MODULES_FILE,
        lambda old: add_module_lines(old, names),
        Change(
            f"Named {', '.join(names)} as modules the initramfs always holds",
            "updates of the kernel keep them",
            MODULES_FILE,
        ),
    )
