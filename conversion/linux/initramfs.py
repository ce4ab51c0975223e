"""What an initramfs holds, what it lacks, and the archive that brings what it lacks.

Pure functions; `initramfs_repair` applies them to a guest.
"""

from __future__ import annotations

import gzip
import re
import stat
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from conversion.linux.cpio import Archive, Entry, write_archive
from conversion.linux.decompress import LZ4_MAGIC
from conversion.linux.device_names import PLACES, DeviceMap, remap_all, remap_file
from conversion.linux.kernels import BUS_DRIVERS, NET_DRIVERS
from conversion.linux.modules import Modules, dep_index, module_name, write_dep
from v2v.types import BlockBus, NetModel

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
NAMES_DISKS = re.compile(
    r"conf/conf\.d/[^/]+|conf/param\.conf|cryptroot/crypttab|etc/crypttab"
    r"|etc/mdadm/mdadm\.conf|etc/lvm/lvm\.conf"
)
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


def stale_files(archive: Archive, names: Callable[[], DeviceMap]) -> dict[str, bytes]:
    """Small files of the archive that name disks the target does not have, with other names.

    names: called only if there is a name to remap.
    """
    stale = {}
    for path, data in archive.contents.items():
        text = data.decode("utf-8", "surrogateescape")
        if "/dev/" not in text or not NAMES_DISKS.fullmatch(path) or archive.is_link(path):
            continue
        new = _remap(path, text, names())
        if new != text:
            stale[path] = new.encode("utf-8", "surrogateescape")
    return stale


def _remap(path: str, text: str, names: DeviceMap) -> str:
    """A copy of a file of the guest as that file is changed; of others, every name in it."""
    where = next((w for w in PLACES if f"/{path}" in w.patterns), None)
    return (remap_file(text, where, names) if where else remap_all(text, names)).text


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
