"""Initramfs archives made from the one of this host's kernel, for tests."""

from __future__ import annotations

import gzip
import io
import lzma
import stat
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import lz4.block
import zstandard

from conversion.linux.cpio import Entry, Limits, read_initramfs, write_archive
from conversion.linux.modules import Modules, module_name, parse_modules
from v2v.types import MiB


def lz4_legacy(data: bytes) -> bytes:
    """The format of `lz4 -l`, which is what the kernel reads."""
    out = b"\x02\x21\x4c\x18"
    for start in range(0, len(data), 8 * MiB):
        block = lz4.block.compress(data[start : start + 8 * MiB], store_size=False)
        out += struct.pack("<I", len(block)) + block
    return out


KERNEL_COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "plain": lambda data: data,
    "gzip": lambda data: gzip.compress(data, 1),
    "xz": lambda data: lzma.compress(data, check=lzma.CHECK_CRC32, preset=0),
    "zstd": lambda data: zstandard.compress(data, 1),
    "lz4": lz4_legacy,
}


@dataclass(frozen=True)
class HostKernel:
    """A kernel installed on this host, with its modules and its initramfs."""

    version: str
    image: Path
    initramfs: Path
    folder: Path  # of its modules

    def modules(self) -> Modules:
        dep = (self.folder / "modules.dep").read_text()
        return parse_modules(dep, (self.folder / "modules.builtin").read_text())


def host_kernel() -> HostKernel | None:
    for initramfs in sorted(Path("/boot").glob("initrd.img-*")):
        version = initramfs.name.removeprefix("initrd.img-")
        image = Path(f"/boot/vmlinuz-{version}")
        folder = Path(f"/lib/modules/{version}")
        if image.exists() and (folder / "modules.dep").exists():
            return HostKernel(version, image, initramfs, folder)
    return None


def without_virtio(initramfs: Path) -> bytes:
    """A plain archive that knows nothing of virtio: neither modules nor what depmod wrote."""
    image = io.BytesIO(initramfs.read_bytes())
    found = read_initramfs(image, lambda path: True, Limits(kept=1024 * MiB))
    entries = []
    for path, mode in found.modes.items():
        name = path.rsplit("/", 1)[-1]
        module = module_name(path) or ""
        if name.startswith("modules.") or module.startswith(("virtio", "net_failover", "failover")):
            continue
        keep = stat.S_ISREG(mode) or stat.S_ISLNK(mode)
        entries.append(Entry(path, mode, found.contents[path] if keep else b""))
    return write_archive(entries)
