"""The guests that other tests rely on are what they say. Host tools only, no appliance."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import fixtures
from fixtures import cache
from fixtures.disk import Disk, MiB, Partition, ext4, swap
from fixtures.partitions import partitions

Images = Callable[[str], Path]


def debugfs(image: Path, request: str, partition: int = 0) -> str:
    offset, _ = partitions(image)[partition]
    done = subprocess.run(
        ["/sbin/debugfs", "-R", request, f"{image}?offset={offset}"],
        check=True,
        capture_output=True,
        text=True,
        errors="replace",
    )
    return done.stdout


def free(image: Path, what: str) -> int:
    lines = debugfs(image, "stats -h").splitlines()
    (line,) = [line for line in lines if line.startswith(f"Free {what}:")]
    return int(line.split()[-1])


def filesystem(image: Path, partition: int) -> str:
    offset, size = partitions(image)[partition]
    done = subprocess.run(
        ["/sbin/blkid", "-p", f"-O{offset}", f"-S{size}", "-sTYPE", "-ovalue", str(image)],
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.strip()


def test_guest_is_built_once_and_read_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("V2V_FIXTURES", str(tmp_path))
    source = tmp_path / "builder.py"
    source.write_text("first")
    built = []

    def build(path: Path) -> None:
        path.write_text("image")
        built.append(path)

    first = cache.cached("guest", [source], build)
    assert cache.cached("guest", [source], build) == first
    assert len(built) == 1
    assert first.stat().st_mode & 0o777 == 0o444

    source.write_text("second")
    second = cache.cached("guest", [source], build)
    assert second != first
    assert len(built) == 2
    assert first.exists(), "another process may be using it"

    os.utime(first, (0, 0))
    source.write_text("third")
    cache.cached("guest", [source], build)
    assert not first.exists(), "an old image of an older builder is removed"
    assert second.exists()


def test_failed_build_leaves_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("V2V_FIXTURES", str(tmp_path))

    def build(path: Path) -> None:
        path.write_text("half")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        cache.cached("guest", [Path(__file__)], build)
    assert [path.name for path in tmp_path.iterdir()] == ["guest.lock"]


def test_unknown_guest_names_those_there_are() -> None:
    with pytest.raises(KeyError, match="tiny-debian"):
        fixtures.guest("debain")


def test_disk_holds_its_partitions(tmp_path: Path) -> None:
    image = tmp_path / "disk.img"
    Disk(
        [Partition(16 * MiB, ext4({"/a/b": "content"})), Partition(2 * MiB, swap(), "swap")],
        table="gpt",
    ).build(image)
    assert partitions(image) == [(MiB, 16 * MiB), (17 * MiB, 2 * MiB)]
    assert debugfs(image, "cat /a/b") == "content"
    assert "User:     0   Group:     0" in debugfs(image, "stat /a/b")
    assert filesystem(image, 1) == "swap"


@pytest.mark.parametrize(
    ("name", "partition", "file", "content"),
    [
        ("tiny-debian", 0, "/etc/fstab", "/dev/sda1 / ext4"),
        ("tiny-debian", 0, "/etc/network/interfaces", "iface ens192 inet static"),
        ("tiny-debian", 0, "/var/lib/dpkg/status", "Package: linux-image-6.1.0-18-amd64"),
        ("tiny-debian", 0, "/usr/lib/modules/6.1.0-18-amd64/modules.dep", "block/virtio_blk.ko:"),
        ("tiny-ubuntu", 1, "/etc/netplan/00-installer-config.yaml", "ens160:"),
        ("tiny-ubuntu", 1, "/usr/lib/modules/5.15.0-100-generic/modules.builtin", "virtio_blk.ko"),
        ("tiny-fedora", 0, "/etc/os-release", "ID=fedora"),
        ("tiny-two-roots", 0, "/etc/os-release", 'VERSION_ID="12"'),
        ("tiny-two-roots", 1, "/etc/os-release", 'VERSION_ID="11"'),
        ("tiny-hibernated", 0, "/etc/fstab", "/dev/sda2 none swap"),
        ("tiny-empty", 0, "/notes.txt", "nothing here"),
    ],
)
def test_tiny_guest_holds(
    guest_image: Images, name: str, partition: int, file: str, content: str
) -> None:
    assert content in debugfs(guest_image(name), f"cat {file}", partition)


def test_initramfs_of_tiny_guest_is_readable(guest_image: Images, tmp_path: Path) -> None:
    target = tmp_path / "initrd"
    debugfs(guest_image("tiny-debian"), f"dump /boot/initrd.img-6.1.0-18-amd64 {target}")
    listing = subprocess.run(
        f"gzip -dc {target} | cpio -t --quiet", shell=True, capture_output=True, text=True
    )
    assert "kernel/drivers/block/virtio_blk.ko" in listing.stdout
    assert listing.stderr == ""


def test_full_guest_has_no_free_block(guest_image: Images) -> None:
    assert free(guest_image("tiny-full"), "blocks") < 10


def test_guest_without_inodes_has_space(guest_image: Images) -> None:
    assert free(guest_image("tiny-no-inodes"), "inodes") < 100
    assert free(guest_image("tiny-no-inodes"), "blocks") * 1024 > 100_000_000


def test_hibernated_guest_is_seen_as_such(guest_image: Images) -> None:
    assert filesystem(guest_image("tiny-hibernated"), 1) == "swsuspend"


def test_windows_guest_is_ntfs(guest_image: Images) -> None:
    assert filesystem(guest_image("tiny-windows"), 0) == "ntfs"


def test_broken_guest_cannot_be_repaired_unasked(guest_image: Images, tmp_path: Path) -> None:
    image = guest_image("tiny-broken-ext4")
    assert filesystem(image, 0) == "ext4"
    copy = tmp_path / "copy.img"
    subprocess.run(["cp", "--sparse=always", image, copy], check=True)
    copy.chmod(0o644)
    checked = subprocess.run(["/sbin/e2fsck", "-p", f"{copy}?offset={MiB}"], capture_output=True)
    assert checked.returncode & 4, checked
