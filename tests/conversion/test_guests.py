"""Every kind of guest that is found, and every one that is refused, in one appliance.

Many guests are attached to it at once. A test sees only the disks of its own: it is given the
volumes on them, and controllers that make them the guest's first SCSI disks.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from conversion import boot, decrypt, filesystems, inspection, session
from conversion.disk_head import ESP, DiskHead
from conversion.problems import Problems
from conversion.session import Disks
from conversion.volumes import Volumes, disk_name, find_volumes
from fixtures.linux import PROGRAM
from tests.conversion.disks import blank, serve, source
from v2v.errors import GuestError
from v2v.job import ConversionOptions
from v2v.run import Run
from v2v.types import Firmware, KiB, MiB

pytestmark = pytest.mark.appliance

GUESTS = (
    "tiny-debian",
    "tiny-ubuntu",
    "tiny-fedora",
    "tiny-two-roots",
    "tiny-full",
    "tiny-no-inodes",
    "tiny-hibernated",
    "tiny-windows",
    "tiny-empty",
    "tiny-broken-ext4",
    "tiny-lvm-luks",
)
SCRATCH = len(GUESTS)  # the index of a disk that a test may fill itself
OPTIONS = ConversionOptions()


@dataclass
class Bench:
    """The appliance, and what is needed to look at one guest in it."""

    g: Any
    run: Run
    images: list[Path]
    heads: tuple[DiskHead, ...]
    volumes: Volumes
    keys: tuple[str, ...]

    def disks(self, index: int, *, root: str = "ask", collect: bool = False) -> Disks:
        """Guest number `index`, as if it were alone."""
        controllers = ["scsi" if i == index else "nvme" for i in range(len(self.images))]
        heads = tuple(h if i == index else DiskHead({}) for i, h in enumerate(self.heads))
        return Disks(
            self.g,
            source(self.images, controllers),
            replace(OPTIONS, root=root),
            self.run,
            heads,
            Problems(collect=collect),
            self.on(index),
        )

    def guest(self, name: str, *, root: str = "ask", collect: bool = False) -> Disks:
        return self.disks(GUESTS.index(name), root=root, collect=collect)

    def on(self, index: int) -> Volumes:
        mine = [fs for fs in self.volumes.filesystems if self._is_on(fs.device, index)]
        locked = [fs for fs in self.volumes.locked if self._is_on(fs.device, index)]
        return Volumes(tuple(mine), tuple(locked))

    def _is_on(self, device: str, index: int) -> bool:
        if not device.startswith("/dev/sd"):
            return index == GUESTS.index("tiny-lvm-luks")
        return device.rstrip("0123456789") == disk_name(index)


@pytest.fixture(scope="module")
def bench(guest_image, tmp_path_factory) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("guests")
    images = [*map(guest_image, GUESTS), blank(folder / "scratch", 1200 * MiB)]
    key = folder / "key"
    key.write_text("secret\n")
    keys = (f"all:file:{key}",)
    options = replace(OPTIONS, keys=keys)
    with (
        Run.create(folder / "jobs", "guests") as run,
        serve(images, run) as endpoints,
        session.open_disks(source(images), endpoints, options, run, Problems()) as disks,
    ):
        yield Bench(disks.g, run, images, disks.heads, disks.volumes, keys)


@pytest.fixture(autouse=True)
def nothing_mounted(bench: Bench) -> Iterator[None]:
    yield
    bench.g.umount_all()


def prepare(disks: Disks) -> Any:
    """What convert() does before it changes anything."""
    session.check(disks)
    guest = session.mount(disks, session.find_root(disks))
    session.check_room(disks, guest)
    return guest


def refused(disks: Disks) -> GuestError:
    with pytest.raises(GuestError) as caught:
        prepare(disks)
    assert caught.value.hint
    return caught.value


# What is accepted ---------------------------------------------------------------------------------


def test_debian(bench):
    disks = bench.guest("tiny-debian")
    guest = prepare(disks)
    assert (guest.os.distro, guest.os.version, guest.os.arch) == ("debian", "12", "x86_64")
    assert guest.os.osinfo == "http://debian.org/debian/12"
    assert guest.root == "/dev/sda1"
    assert guest.mounts == {"/": "/dev/sda1"}
    assert guest.firmware is Firmware.BIOS
    assert guest.packages["dpkg"] == "1.21.22"
    assert not disks.problems.findings
    assert not guest.exists("/.v2v-write-test")


def test_ubuntu_on_gpt_with_a_bios_boot_partition(bench):
    guest = prepare(bench.guest("tiny-ubuntu"))
    assert (guest.os.distro, guest.os.version) == ("ubuntu", "22.04")
    assert guest.root == "/dev/sdb2"
    assert guest.firmware is Firmware.BIOS
    assert guest.boot_disk == 1


def test_one_of_two_roots_by_name_or_the_first(bench):
    first = prepare(bench.guest("tiny-two-roots", root="first"))
    assert (first.root, first.os.version) == ("/dev/sdd1", "12")
    bench.g.umount_all()
    named = prepare(bench.guest("tiny-two-roots", root="/dev/sdd2"))
    assert (named.root, named.os.version) == ("/dev/sdd2", "11")


def test_lvm_inside_luks_is_opened_with_the_key(bench):
    guest = prepare(bench.guest("tiny-lvm-luks"))
    assert guest.root == "/dev/tiny/root"
    assert guest.mounts["/boot"] == f"{disk_name(GUESTS.index('tiny-lvm-luks'))}1"


def test_trimming_makes_free_space_known(bench):
    disks = bench.guest("tiny-debian")
    guest = prepare(disks)
    session.trim(disks, guest, "trim", "Trimming")
    assert not disks.problems.findings
    session.unmount_and_check(disks, guest)


# What is refused ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("tiny-fedora", "guest-unsupported", "Fedora"),
        ("tiny-windows", "guest-unsupported", "Windows"),
        ("tiny-two-roots", "root-ambiguous", "/dev/sdd2"),
        ("tiny-full", "guest-no-space", "/ in the guest has"),
        ("tiny-no-inodes", "guest-no-space", "free inodes"),
        ("tiny-hibernated", "guest-hibernated", "/dev/sdg2"),
        ("tiny-empty", "no-os", "no operating system"),
        ("tiny-broken-ext4", "filesystem-dirty", "/dev/sdj1"),
    ],
)
def test_refusals(bench, name, error, words):
    found = refused(bench.guest(name))
    assert found.id == error
    assert words in found.message


def test_a_root_that_is_not_there(bench):
    assert refused(bench.guest("tiny-debian", root="/dev/sda9")).id == "root-unknown"


def test_an_encrypted_disk_without_its_key_is_named(bench, tmp_path):
    wrong = tmp_path / "wrong"
    wrong.write_text("not it")
    device = f"{disk_name(GUESTS.index('tiny-lvm-luks'))}2"
    (container,) = [fs for fs in bench.volumes.filesystems if fs.device == device]
    _, locked = decrypt.open_all(bench.g, [container], [decrypt.Key("all", wrong)])
    disks = bench.guest("tiny-lvm-luks")
    disks.volumes = Volumes((), tuple(locked))
    found = refused(disks)
    assert found.id == "guest-encrypted"
    assert device in found.message
    assert "--key" in (found.hint or "")


def test_inspection_collects_what_conversion_would_refuse(bench):
    disks = bench.guest("tiny-hibernated", collect=True)
    prepare(disks)
    assert [f.id for f in disks.problems.findings if f.severity == "blocker"] == [
        "guest-hibernated"
    ]


# Filesystems made here ----------------------------------------------------------------------------

OS_RELEASE = b"ID=debian\nVERSION_ID=12\n"


@pytest.fixture
def scratch(partitions: str, bench: Bench) -> Iterator[str]:
    """Three empty partitions of a disk that a test may fill."""
    yield partitions
    bench.g.umount_all()
    for number in (1, 2, 3):
        bench.g.wipefs(f"{partitions}{number}")


@pytest.fixture(scope="module")
def partitions(bench: Bench) -> str:
    disk = disk_name(SCRATCH)
    bench.g.part_init(disk, "gpt")
    for start, end in ((2048, 821247), (821248, 1640447), (1640448, 2365439)):
        bench.g.part_add(disk, "p", start, end)
    return disk


def install(g: Any, fstab: str = "") -> None:
    """The files that make a tree of folders an operating system, where / is mounted."""
    for folder in ("/etc", "/bin", "/home", "/boot", "/srv"):
        g.mkdir_p(folder)
    g.write("/etc/os-release", OS_RELEASE)
    g.write("/etc/fstab", fstab.encode())


def scratch_disks(bench: Bench, **options: Any) -> Disks:
    disks = bench.disks(SCRATCH, **options)
    found = find_volumes(bench.g, len(bench.images), ())
    mine = (fs for fs in found.filesystems if fs.device.startswith(disk_name(SCRATCH)))
    disks.volumes = Volumes(tuple(mine), ())
    return disks


def test_btrfs_subvolumes_hold_the_root_and_snapshots_are_no_roots(bench, scratch):
    g, device = bench.g, f"{scratch}1"
    g.mkfs("btrfs", device)
    g.mount(device, "/")
    for path in ("/@", "/@home", "/@snapshots"):
        g.btrfs_subvolume_create(path)
    g.umount_all()
    g.mount(f"btrfsvol:{device}/@", "/")
    install(g, "/dev/sda1 / btrfs subvol=@ 0 0\n/dev/sda1 /home btrfs subvol=/@home 0 0\n")
    g.umount_all()
    g.mount(device, "/")
    g.btrfs_subvolume_snapshot("/@", "/@snapshots/1", ro=True)
    g.umount_all()
    guest = prepare(scratch_disks(bench))
    assert guest.root == f"btrfsvol:{device}/@"
    assert guest.mounts["/home"] == f"btrfsvol:{device}/@home"


def test_a_usr_of_its_own_holds_what_tells_the_system(bench, scratch):
    """Where /bin and os-release are links into /usr, the root alone looks like no system."""
    g, device = bench.g, f"{scratch}1"
    g.mkfs("ext4", device)
    g.mkfs("ext4", f"{scratch}2")
    g.mount(device, "/")
    for folder in ("/etc", "/usr"):
        g.mkdir(folder)
    g.mount(f"{scratch}2", "/usr")
    for folder in ("/usr/bin", "/usr/lib"):
        g.mkdir(folder)
    g.write("/usr/bin/sh", PROGRAM)
    g.write("/usr/lib/os-release", OS_RELEASE)
    g.ln_s("usr/bin", "/bin")
    g.ln_s("../usr/lib/os-release", "/etc/os-release")
    g.write("/etc/debian_version", b"12.5\n")
    g.write("/etc/fstab", b"/dev/sda1 / ext4\n/dev/sda2\t/usr ext4\n")
    g.umount_all()
    guest = prepare(scratch_disks(bench))
    assert guest.mounts == {"/": device, "/usr": f"{scratch}2"}
    assert (guest.os.distro, guest.os.version, guest.os.arch) == ("debian", "12", "x86_64")


def test_a_zfs_pool_beside_the_root_is_data(bench, scratch):
    g, device = bench.g, f"{scratch}1"
    g.mkfs("ext4", device)
    g.mount(device, "/")
    install(g)
    g.umount_all()
    for number in range(8):  # uberblocks, by whose magic the pool is known
        place = 128 * KiB + number * KiB
        g.pwrite_device(f"{scratch}2", struct.pack("<4Q", 0x00BAB10C, 5000, number, 7), place)
    disks = scratch_disks(bench)
    assert [fs.type for fs in disks.volumes.filesystems] == ["ext4", "zfs_member"]
    assert prepare(disks).root == device


def test_half_of_a_btrfs_pair_is_no_reason_to_fail(bench, scratch):
    g, device = bench.g, f"{scratch}1"
    g.mkfs("ext4", device)
    g.mount(device, "/")
    install(g)
    g.umount_all()
    g.mkfs_btrfs([f"{scratch}2", f"{scratch}3"], datatype="raid0", metadata="raid0")
    g.wipefs(f"{scratch}3")
    assert prepare(scratch_disks(bench)).root == device


@pytest.fixture
def group(bench: Bench, scratch: str) -> Iterator[str]:
    """A volume group on the first partition."""
    bench.g.pvcreate(f"{scratch}1")
    bench.g.vgcreate("guest", [f"{scratch}1"])
    yield "guest"
    bench.g.umount_all()
    bench.g.vgremove("guest")
    bench.g.pvremove(f"{scratch}1")


def test_a_volume_by_the_name_that_ubuntus_installer_gives_it(bench, scratch, group):
    g = bench.g
    for name in ("root", "srv"):
        g.lvcreate(name, group, 150)
        g.mkfs("ext4", f"/dev/{group}/{name}")
    (uuid,) = (v["vg_uuid"] for v in g.vgs_full() if v["vg_name"] == group)
    spec = f"dm-uuid-LVM-{uuid}{g.lvuuid(f'/dev/{group}/srv')}".replace("-", "")
    spec = f"/dev/disk/by-id/dm-uuid-LVM-{spec.removeprefix('dmuuidLVM')}"
    g.mount(f"/dev/{group}/root", "/")
    install(g, f"/dev/{group}/root / ext4\n{spec} /srv ext4\n")
    g.umount_all()
    disks = scratch_disks(bench)
    found = find_volumes(g, len(bench.images), ())
    disks.volumes = Volumes(tuple(fs for fs in found.filesystems if group in fs.device), ())
    assert prepare(disks).mounts == {"/": f"/dev/{group}/root", "/srv": f"/dev/{group}/srv"}


def test_an_encrypted_volume_is_opened_or_told(bench, scratch, group):
    g = bench.g
    g.lvcreate("secret", group, 100)
    g.luks_format(f"/dev/{group}/secret", "secret", 0)
    (locked,) = [fs for fs in find_volumes(g, len(bench.images), ()).locked if fs.lv_uuid]
    opened, _ = decrypt.open_all(g, [locked], decrypt.parse_keys(bench.keys), first=7)
    assert opened == {"/dev/mapper/v2v-7": locked}
    g.cryptsetup_close("/dev/mapper/v2v-7")


def test_mounts_that_cannot_be_made_are_findings(bench, scratch):
    g, device = bench.g, f"{scratch}1"
    g.mkfs("ext4", device)
    g.mount(device, "/")
    install(
        g,
        "/dev/sda1 / ext4\n"
        "UUID=0000-none /home ext4\n"
        "/dev/sda3 /not/there ext4\n"
        "/dev/sda2 /srv ext4\n",
    )
    g.umount_all()
    g.mkfs("ext4", f"{scratch}2", label="data")
    g.mkfs("ext4", f"{scratch}3")
    disks = scratch_disks(bench)
    guest = prepare(disks)
    assert guest.mounts == {"/": device, "/srv": f"{scratch}2"}
    assert [f.id for f in disks.problems.findings] == ["filesystem-missing", "mount-failed"]


def test_a_mountpoint_that_is_a_link_stays_inside_the_guest(bench, scratch):
    """The appliance itself has a /usr/bin; a mount there would replace its own programs."""
    g, device = bench.g, f"{scratch}1"
    g.mkfs("ext4", device)
    g.mount(device, "/")
    install(g, "/dev/sda2 /data ext4\n")
    g.mkdir_p("/usr/bin")
    g.ln_s("/usr/bin", "/data")
    g.umount_all()
    g.mkfs("ext4", f"{scratch}2")
    guest = prepare(scratch_disks(bench))
    assert guest.mounts["/usr/bin"] == f"{scratch}2"
    assert g.ls("/usr/bin") == ["lost+found"]


def test_a_label_with_a_space(bench, scratch):
    g, device = bench.g, f"{scratch}1"
    g.mkfs("ext4", device)
    g.mount(device, "/")
    install(g, "/dev/sda1 / ext4\nLABEL=my\\040data /srv ext4\n")
    g.umount_all()
    g.mkfs("ext4", f"{scratch}2", label="my data")
    assert prepare(scratch_disks(bench)).mounts["/srv"] == f"{scratch}2"


def test_the_esp_is_mounted_where_systemd_would_though_no_fstab_names_it(bench, scratch):
    g, device = bench.g, f"{scratch}1"
    g.mkfs("ext4", device)
    g.mount(device, "/")
    install(g)
    g.mkdir_p("/boot/efi")
    g.umount_all()
    g.mkfs("vfat", f"{scratch}2")
    disks = scratch_disks(bench)
    disks.heads = (*disks.heads[:-1], DiskHead({2: ESP}))
    guest = session.mount(disks, inspection.Root(device, inspection.UNKNOWN))
    assert guest.mounts == {"/": device, "/boot/efi": f"{scratch}2"}
    assert guest.firmware is Firmware.UEFI
    assert guest.boot_disk == SCRATCH


def test_a_guest_hibernated_to_a_swap_file(bench, scratch):
    g, device = bench.g, f"{scratch}1"
    g.mkfs("ext4", device)
    g.mount(device, "/")
    install(g, "/swapfile none swap sw 0 0\n")
    g.write("/swapfile", bytes(4086) + b"S1SUSPEND\0")
    g.umount_all()
    assert refused(scratch_disks(bench)).id == "guest-hibernated"


def test_a_windows_that_sleeps_is_told_by_its_hibernation_file(bench):
    device = f"{disk_name(GUESTS.index('tiny-windows'))}1"
    bench.g.mount(device, "/")
    bench.g.write("/hiberfil.sys", b"HIBR" + bytes(4096))
    bench.g.umount_all()
    disks = bench.guest("tiny-windows", collect=True)
    session.find_root(disks)
    found = {f.id for f in disks.problems.findings}
    assert found == {"guest-hibernated", "guest-unsupported"}


def test_an_ext4_that_was_not_unmounted_is_replayed(bench, scratch):
    """A copy of a mounted filesystem is what a disk looks like when the power went."""
    g, device = bench.g, f"{scratch}1"
    g.mkfs("ext4", device)
    g.mount(device, "/")
    install(g)
    g.sync()
    g.copy_device_to_device(device, f"{scratch}2")
    g.umount_all()
    g.wipefs(device)
    disks = scratch_disks(bench)
    (fs,) = disks.volumes.filesystems
    assert "needs_recovery" in g.tune2fs_l(fs.device)["Filesystem features"]
    guest = prepare(disks)
    assert guest.root == f"{scratch}2"
    g.umount_all()
    assert "needs_recovery" not in g.tune2fs_l(fs.device)["Filesystem features"]


def test_an_xfs_root_and_one_that_is_damaged(bench, scratch):
    if not bench.g.feature_available(["xfs"]):
        pytest.skip("the appliance has no xfsprogs")
    g, device = bench.g, f"{scratch}1"
    g.mkfs("xfs", device)
    g.mount(device, "/")
    install(g)
    g.umount_all()
    assert prepare(scratch_disks(bench)).root == device
    g.umount_all()
    g.pwrite_device(device, b"\xff" * 512, 1024)  # the free space header of the first group
    assert refused(scratch_disks(bench)).id == "filesystem-dirty"


def test_errors_of_filesystems_that_are_not_mounted_are_findings(bench):
    """A broken data disk of another system in the same VM is no reason to refuse."""
    disks = bench.guest("tiny-debian")
    broken = bench.guest("tiny-broken-ext4").volumes.filesystems
    disks.volumes = Volumes((*disks.volumes.filesystems, *broken), ())
    guest = prepare(disks)
    assert guest.root == "/dev/sda1"
    (finding,) = disks.problems.findings
    assert (finding.severity, finding.id) == ("warning", "filesystem-dirty")


def test_heads_are_read_without_the_appliance(bench):
    assert bench.heads[GUESTS.index("tiny-ubuntu")].bios_boot
    assert boot.firmware(source(bench.images), bench.heads) is Firmware.BIOS


def test_the_same_filesystem_twice_is_one_system(bench):
    disks = bench.guest("tiny-debian")
    (fs,) = disks.volumes.filesystems
    assert len(inspection.find_roots(bench.g, Volumes((fs, fs), ()))) == 1


def test_what_no_check_is_known_for_is_left_alone(bench):
    swap = next(
        fs for fs in bench.guest("tiny-hibernated").volumes.filesystems if fs.type != "ext4"
    )
    assert filesystems.check(bench.g, swap) is None
