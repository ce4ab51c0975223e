"""What an initramfs lacks, and what is appended; the proof is a kernel that finds its disk."""

from __future__ import annotations

import io
import subprocess
from pathlib import Path

import pytest

from conversion.linux import initramfs
from conversion.linux.cpio import Archive, Entry, read_initramfs, write_archive
from conversion.linux.device_names import DeviceMap
from conversion.linux.initramfs import Missing
from conversion.linux.modules import Modules, parse_modules
from tests.conversion.linux.initramfs_maker import (
    KERNEL_COMPRESSIONS,
    HostKernel,
    host_kernel,
    without_virtio,
)
from v2v.types import BlockBus, MiB, NetModel

V = "6.1.0-18-amd64"
MODULES = parse_modules(
    "k/virtio.ko:\n"
    "k/virtio_ring.ko:\n"
    "k/virtio_pci.ko: k/virtio_ring.ko k/virtio.ko\n"
    "k/virtio_blk.ko: k/virtio_ring.ko k/virtio.ko\n"
    "k/failover.ko:\n"
    "k/virtio_net.ko: k/failover.ko k/virtio_ring.ko k/virtio.ko\n"
    "k/virtio_scsi.ko: k/scsi_mod.ko k/virtio.ko\n"
    "k/scsi_mod.ko:\n"
    "k/sd_mod.ko: k/scsi_mod.ko\n"
)
WANTED = initramfs.drivers_for(BlockBus.VIRTIO_BLK, NetModel.VIRTIO, MODULES)


def archive(*entries: Entry) -> Archive:
    return read_initramfs(io.BytesIO(write_archive(entries)), initramfs.wanted_name)


def module(name: str, prefix: str = "usr/lib", suffix: str = "ko") -> Entry:
    return Entry(f"{prefix}/modules/{V}/k/{name}.{suffix}", 0o100644, b"x")


def test_what_virtio_needs_depends_on_the_bus_and_on_what_is_built_in() -> None:
    assert WANTED == ("failover", "virtio", "virtio_blk", "virtio_net", "virtio_pci", "virtio_ring")
    scsi = initramfs.drivers_for(BlockBus.VIRTIO_SCSI, NetModel.VIRTIO, MODULES)
    assert {"virtio_scsi", "sd_mod", "scsi_mod"} < set(scsi)
    builtin = Modules(MODULES.files, MODULES.needs, frozenset(MODULES.files))
    assert initramfs.drivers_for(BlockBus.VIRTIO_BLK, NetModel.VIRTIO, builtin) == ()


@pytest.mark.parametrize("suffix", ["ko", "ko.xz", "ko.zst", "ko.gz"])
@pytest.mark.parametrize("prefix", ["lib", "usr/lib"])
def test_a_complete_initramfs_lacks_nothing(prefix: str, suffix: str) -> None:
    found = archive(*(module(name, prefix, suffix) for name in WANTED))
    contents = initramfs.contents_of(found, V)
    assert contents.prefix == f"{prefix}/modules/{V}"
    assert initramfs.missing_modules(contents, WANTED) == ()


def test_modules_of_another_kernel_do_not_count() -> None:
    contents = initramfs.contents_of(archive(*(module(name) for name in WANTED)), "6.1.0-19-amd64")
    assert initramfs.missing_modules(contents, WANTED) == WANTED


def extended(found: Archive, missing: Missing) -> tuple[list[Entry], Archive]:
    contents = initramfs.contents_of(found, V)
    files = {MODULES.files[name]: name.encode() for name in missing.modules}
    entries = initramfs.extension(contents, V, MODULES, missing, files)
    return entries, read_initramfs(io.BytesIO(write_archive(entries)), lambda path: True)


def test_extension_brings_the_missing_and_an_index_of_all() -> None:
    found = archive(
        Entry("lib", 0o120777, b"usr/lib"),
        *(Entry(path, 0o40755) for path in ("usr", "usr/lib", "usr/lib/modules", "conf")),
        Entry("conf/modules", 0o100644, b"linear\nvirtio_pci"),
        module("sd_mod", suffix="ko.xz"),
    )
    entries, added = extended(found, Missing(("virtio", "virtio_blk", "virtio_pci")))
    base = f"usr/lib/modules/{V}"
    assert added.contents[f"{base}/k/virtio_blk.ko"] == b"virtio_blk"
    assert added.contents["conf/modules"] == b"linear\nvirtio_pci\nvirtio\nvirtio_blk\n"
    assert added.contents[f"{base}/modules.dep"].decode().splitlines() == [
        "k/sd_mod.ko.xz:",
        "k/virtio.ko:",
        "k/virtio_blk.ko: k/virtio.ko",
        "k/virtio_pci.ko: k/virtio.ko",
    ]
    assert f"{base}/modules.dep.bin" in added.contents
    assert not {e.path for e in entries} & {"lib", "usr/lib", "usr/lib/modules", "conf"}


@pytest.mark.parametrize(
    ("first", "prefix"),
    [
        ([Entry("lib", 0o120777, b"usr/lib")], "usr/lib"),
        ([Entry("lib", 0o40755)], "lib"),
        ([], "lib"),
    ],
)
def test_an_initramfs_without_modules_gets_them_where_its_lib_is(
    first: list[Entry], prefix: str
) -> None:
    found = archive(Entry("init", 0o100755), *first)
    _, added = extended(found, Missing(("virtio",)))
    assert f"{prefix}/modules/{V}/k/virtio.ko" in added.contents
    assert "conf/modules" not in added.contents  # not of initramfs-tools


def test_files_that_name_the_sources_disks_are_replaced() -> None:
    found = archive(
        Entry("conf/conf.d", 0o40755),
        Entry("conf/conf.d/resume", 0o100644, b"RESUME=/dev/sda2\n"),
        Entry("conf/conf.d/other", 0o100644, b"X=/dev/mapper/a\n"),
        Entry("cryptroot/crypttab", 0o100600, b"c /dev/sda3 none luks\n"),
        Entry("etc/lvm/lvm.conf", 0o100644, b'filter = [ "a|/dev/sda2|" ]\n# /dev/sda2\n'),
    )
    names = DeviceMap((None,), "vd", {(0, 2): "UUID=s", (0, 3): "UUID=c"})
    stale = initramfs.stale_files(found, lambda: names)
    assert stale == {
        "conf/conf.d/resume": b"RESUME=UUID=s\n",
        "cryptroot/crypttab": b"c UUID=c none luks\n",
        "etc/lvm/lvm.conf": b'filter = [ "a|/dev/vda2|" ]\n# /dev/sda2\n',
    }
    _, added = extended(found, Missing((), stale))
    assert added.contents == stale and added.modes["cryptroot/crypttab"] == 0o100600


@pytest.mark.parametrize("size", [0, 1, 4095, 4096])
@pytest.mark.parametrize("compress", [True, False])
def test_what_is_appended_begins_where_the_kernel_looks(size: int, compress: bool) -> None:
    tail = initramfs.tail_bytes(size, [Entry("a", 0o100644, b"b")], compress=compress)
    start = len(tail) - len(tail.lstrip(b"\0"))
    assert (size + start) % 4 == 0 and start < 4


@pytest.mark.parametrize(
    ("text", "after"),
    [
        ("", "virtio_blk\nvirtio_pci\n"),
        ("# c\nraid1", "# c\nraid1\nvirtio_blk\nvirtio_pci\n"),
        ("virtio-pci x=1\n", "virtio-pci x=1\nvirtio_blk\n"),
        ("virtio_blk\nvirtio_pci\n", "virtio_blk\nvirtio_pci\n"),
        ("#virtio_blk\n", "#virtio_blk\nvirtio_blk\nvirtio_pci\n"),
    ],
)
def test_modules_are_named_for_the_guests_own_updates(text: str, after: str) -> None:
    assert initramfs.add_module_lines(text, ("virtio_blk", "virtio_pci")) == after


# A real kernel ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def kernel() -> HostKernel:
    found = host_kernel()
    if found is None:
        pytest.skip("no kernel with an initramfs is installed here")
    return found


@pytest.fixture(scope="module")
def lean(kernel: HostKernel) -> bytes:
    return without_virtio(kernel.initramfs)


def extend(image: bytes, kernel: HostKernel, *, compress: bool) -> bytes:
    modules = kernel.modules()
    found = read_initramfs(io.BytesIO(image), initramfs.wanted_name)
    contents = initramfs.contents_of(found, kernel.version)
    wanted = initramfs.drivers_for(BlockBus.VIRTIO_BLK, NetModel.VIRTIO, modules)
    missing = Missing(initramfs.missing_modules(contents, wanted))
    assert missing.modules == wanted
    paths = [*(modules.files[name] for name in wanted), *initramfs.INDEXES]
    files = {path: (kernel.folder / path).read_bytes() for path in paths}
    entries = initramfs.extension(contents, kernel.version, modules, missing, files)
    align = initramfs.alignment(contents)
    return image + initramfs.tail_bytes(len(image), entries, compress=compress, align=align)


@pytest.mark.boots
@pytest.mark.parametrize("pack", KERNEL_COMPRESSIONS.values(), ids=KERNEL_COMPRESSIONS.keys())
def test_a_kernel_finds_its_virtio_disk_with_an_extended_initramfs(
    kernel: HostKernel, lean: bytes, pack, tmp_path: Path, need_tool
) -> None:
    extended = tmp_path / "initrd"
    extended.write_bytes(extend(pack(lean), kernel, compress=True))
    seen = console(kernel, extended, tmp_path, need_tool("qemu-system-x86_64"))
    assert "virtio_blk" in seen and "[vda]" in seen, seen[-3000:]


def console(kernel: HostKernel, initrd: Path, folder: Path, qemu: str) -> str:
    """Boot until the disk shows up, or the initramfs gives up, or two minutes are over."""
    disk = folder / "disk"
    disk.touch()
    with disk.open("r+b") as file:
        file.truncate(1 * MiB)
    argv = [qemu, "-machine", "q35", "-accel", "tcg", "-cpu", "max", "-m", "512"]
    argv += ["-display", "none", "-serial", "stdio", "-nic", "none", "-no-reboot"]
    argv += ["-drive", f"file={disk},format=raw,if=virtio"]
    argv += ["-kernel", str(kernel.image), "-initrd", str(initrd)]
    argv += ["-append", "console=ttyS0 root=/dev/nosuch rootdelay=20 panic=1"]
    seen = ""
    with subprocess.Popen(
        ["timeout", "120", *argv], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            seen += line
            if "[vda]" in line or "Gave up waiting" in line:
                break
        process.terminate()
    return seen
