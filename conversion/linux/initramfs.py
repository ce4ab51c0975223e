"""The initramfs: whether it can mount the root from virtio disks, and what to add if it cannot.

Rebuilding takes the guest's own tools many minutes in an appliance without KVM, and most guests
need nothing. So it is read first; what is missing is appended as one more archive, which the kernel
unpacks over the first; only an initramfs that we do not understand is rebuilt.
"""

from __future__ import annotations

import gzip
import re
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from conversion.actions import Action, EditFile, RunInGuest
from conversion.guest import Guest
from conversion.linux import devices
from conversion.linux.caps import release
from conversion.linux.cpio import Archive, CpioError, Entry, read_initramfs, write_archive
from conversion.linux.decompress import LZ4_MAGIC
from conversion.linux.kernels import (
    BUS_DRIVERS,
    NET_DRIVERS,
    Kernel,
    best_bus,
    best_net,
    chosen_kernel,
)
from conversion.linux.modules import Modules, dep_index, module_name, write_dep
from v2v.errors import GuestError
from v2v.types import BlockBus, Change, MiB, NetModel

MAX_INITRAMFS = 1024 * MiB
SPARE = 4 * MiB  # left free on the filesystem that holds /boot
MODULES_FILE = "/etc/initramfs-tools/modules"

# depmod's files that name modules but not paths, so that the guest's own serve as they are. With
# them udev in the initramfs can find a driver for a device.
INDEXES = (
    "modules.alias",
    "modules.alias.bin",
    "modules.symbols",
    "modules.symbols.bin",
    "modules.softdep",
    "modules.builtin",
    "modules.builtin.bin",
    "modules.order",
)
# Small files of an initramfs that may name disks as the source named them.
NAMES_DISKS = re.compile(r"conf/conf\.d/[^/]+|conf/param\.conf|cryptroot/crypttab|etc/crypttab")
CONF_MODULES = "conf/modules"


@dataclass(frozen=True, slots=True)
class Contents:
    """What matters of an initramfs, for one kernel."""

    archive: Archive
    prefix: str | None  # lib/modules/VERSION or usr/lib/modules/VERSION; None if it has no modules
    modules: Mapping[str, str] = field(default_factory=dict)  # name: path below the prefix

    @property
    def last_is_lz4(self) -> bool:
        return self.archive.compression[-1:] == (LZ4_MAGIC,)


@dataclass(frozen=True, slots=True)
class Missing:
    """What to add: modules, and new contents of files."""

    modules: tuple[str, ...] = ()
    files: Mapping[str, bytes] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.modules or self.files)


def wanted_name(path: str) -> bool:
    return path == CONF_MODULES or NAMES_DISKS.fullmatch(path) is not None


def contents_of(archive: Archive, version: str) -> Contents:
    modules: dict[str, str] = {}
    prefix = None
    for path, mode in archive.modes.items():
        head, found, rest = path.partition(f"lib/modules/{version}/")
        if not found or head not in ("", "usr/") or not stat.S_ISREG(mode):
            continue
        prefix = f"{head}lib/modules/{version}"
        if name := module_name(rest):
            modules[name] = rest
    return Contents(archive, prefix, modules)


def drivers_for(bus: BlockBus, net: NetModel, modules: Modules) -> tuple[str, ...]:
    """The modules an initramfs must hold, with all they need, in the order of names."""
    return modules.closure([*BUS_DRIVERS[bus], *NET_DRIVERS[net]])


def missing_modules(contents: Contents, wanted: Iterable[str]) -> tuple[str, ...]:
    return tuple(name for name in wanted if name not in contents.modules)


def stale_files(archive: Archive, names: devices.DeviceMap) -> dict[str, bytes]:
    """Small files of the archive that name disks the target does not have, with other names."""
    stale = {}
    for path, data in archive.contents.items():
        if not NAMES_DISKS.fullmatch(path) or archive.is_link(path):
            continue
        text = data.decode("utf-8", "surrogateescape")
        new = devices.remap_all(text, names).text
        if new != text:
            stale[path] = new.encode("utf-8", "surrogateescape")
    return stale


# What is appended ---------------------------------------------------------------------------------


def extension(
    contents: Contents, version: str, modules: Modules, missing: Missing, files: Mapping[str, bytes]
) -> list[Entry]:
    """The entries of the archive to append.

    files: what was read from the guest's /lib/modules/VERSION, by path below it: the missing
    modules and depmod's indexes.
    """
    archive = contents.archive
    prefix = contents.prefix or _default_prefix(archive, version)
    entries: list[Entry] = []
    if missing.modules:
        paths = {**contents.modules, **{name: modules.files[name] for name in missing.modules}}
        dep = write_dep(modules, paths)
        indexes = {**files, "modules.dep": dep.encode(), "modules.dep.bin": dep_index(dep)}
        entries += [Entry(f"{prefix}/{path}", 0o100644, data) for path, data in indexes.items()]
        if archive.is_folder("conf"):  # initramfs-tools loads what is named here, udev or not
            entries.append(Entry(CONF_MODULES, 0o100644, _conf_modules(archive, missing.modules)))
    entries += [Entry(path, archive.modes[path], data) for path, data in missing.files.items()]
    folders = _new_folders(archive, [entry.path for entry in entries])
    return [*(Entry(path, 0o40755) for path in folders), *entries]


def _default_prefix(archive: Archive, version: str) -> str:
    """Where modules go in an archive that has none: never through a link that we would replace."""
    head = "usr/lib" if archive.is_link("lib") or archive.is_folder("usr/lib/modules") else "lib"
    return f"{head}/modules/{version}"


def _conf_modules(archive: Archive, names: Iterable[str]) -> bytes:
    old = archive.contents.get(CONF_MODULES, b"")
    present = {line.split()[0] for line in old.decode("utf-8", "replace").splitlines() if line}
    new = [name for name in names if name not in present]
    separator = b"" if not old or old.endswith(b"\n") else b"\n"
    return old + separator + "".join(f"{name}\n" for name in new).encode()


def _new_folders(archive: Archive, paths: Iterable[str]) -> list[str]:
    """Folders to make; one that is there is left alone, for it may be a link."""
    folders: dict[str, None] = {}
    for path in paths:
        parts = path.split("/")[:-1]
        for depth in range(1, len(parts) + 1):
            folder = "/".join(parts[:depth])
            if folder not in archive.modes:
                folders[folder] = None
    return list(folders)


def alignment(contents: Contents) -> int:
    """Where the kernel looks for the next archive. After lz4 it wants to see a size of zero."""
    return 512 if contents.last_is_lz4 else 4


def tail_bytes(size: int, entries: Iterable[Entry], *, compress: bool, align: int = 4) -> bytes:
    """What follows an initramfs of `size` bytes: zeros, then the new archive."""
    data = write_archive(entries)
    if compress:
        data = gzip.compress(data, 6, mtime=0)
    return bytes(-size % align) + data


# The step -----------------------------------------------------------------------------------------


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
    names = devices.device_map(guest)
    missing = Missing(missing_modules(contents, wanted), stale_files(contents.archive, names))
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

    def apply(self, guest: Guest) -> None:
        path = self.kernel.initramfs
        assert path is not None  # noqa: S101 - repair() gives an Extend only for a file
        files = module_files(guest, self.kernel, self.missing.modules)
        entries = extension(
            self.contents, self.kernel.version, self.kernel.modules, self.missing, files
        )
        align = alignment(self.contents)
        size = guest.g.filesize(path)
        tail = tail_bytes(size, entries, compress=_can_gzip(guest, self.kernel), align=align)
        check_space(guest, size + len(tail))
        self._write(guest, path, size, tail)
        self._verify(guest, path)

    def _write(self, guest: Guest, path: str, size: int, tail: bytes) -> None:
        local = guest.run.tmp / "initramfs-tail"
        temporary = f"{path}.v2v-new"
        try:
            local.write_bytes(tail)
            guest.g.cp_a(guest.g.realpath(path), temporary)
            guest.g.upload_offset(str(local), temporary, size)
            guest.g.sync()
            guest.g.mv(temporary, guest.g.realpath(path))
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


def check_space(guest: Guest, needed: int) -> None:
    stat_fs = guest.g.statvfs("/boot")
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


def add_module_lines(text: str, names: Iterable[str]) -> str:
    present = {
        line.split()[0].replace("-", "_")
        for line in text.splitlines()
        if line.strip() and not line.lstrip().startswith("#")
    }
    new = [name for name in names if name not in present]
    if not new:
        return text
    start = text if not text or text.endswith("\n") else f"{text}\n"
    return start + "".join(f"{name}\n" for name in new)
