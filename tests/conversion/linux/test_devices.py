"""Names of disks in every file that has them."""

from __future__ import annotations

import pytest

from conversion.linux import device_names as devices
from conversion.linux.device_names import DeviceMap, Place

SPECS = {(0, 1): "UUID=root", (0, 2): "UUID=swap", (0, 5): "PARTUUID=p-5", (1, 0): "UUID=data"}
ONE = DeviceMap((None,), "vd", SPECS)
TWO = DeviceMap((None, None), "vd", SPECS)
MIXED = DeviceMap(("scsi", "nvme", "scsi"), "vd", {})


@pytest.mark.parametrize(
    ("device", "place"),
    [
        ("/dev/sda", Place("sd", 0, 0)),
        ("/dev/sdb12", Place("sd", 1, 12)),
        ("/dev/sdaa1", Place("sd", 26, 1)),
        ("/dev/hdc3", Place("hd", 2, 3)),
        ("/dev/xvda2", Place("xvd", 0, 2)),
        ("/dev/nvme1n1p3", Place("nvme", 1, 3)),
        ("/dev/nvme0n1", Place("nvme", 0, 0)),
        ("/dev/cciss/c0d1p2", Place("cciss", 1, 2)),
        ("/dev/disk/by-path/pci-0000:03:00.0-scsi-0:0:2:0-part1", Place("sd", 2, 1)),
        ("/dev/disk/by-path/pci-0000:03:00.0-scsi-0:0:8:0", Place("sd", 7, 0)),
        ("/dev/disk/by-path/pci-0000:02:01.0-ata-1-part3", Place("sd", 0, 3)),
        ("/dev/disk/by-id/wwn-0x6000c29-part2", Place("any", None, 2)),
        ("/dev/disk/by-id/dm-uuid-LVM-xyz", None),
        ("/dev/disk/by-uuid/1234", None),
        ("/dev/mapper/vg-root", None),
        ("/dev/vg/root", None),
        ("/dev/md0", None),
        ("/dev/sr0", None),
        ("/dev/fd0", None),
        ("/dev/sd", Place("all", None, 0)),
        ("/dev/sda01", None),
        ("/dev/sdaaaa1", None),
    ],
)
def test_parse(device: str, place: Place | None) -> None:
    assert devices.parse(device) == place


@pytest.mark.parametrize(
    ("number", "letters"), [(0, "a"), (25, "z"), (26, "aa"), (701, "zz"), (702, "aaa")]
)
def test_letters(number: int, letters: str) -> None:
    assert devices.number_to_letters(number) == letters
    assert devices.letters_to_number(letters) == number


@pytest.mark.parametrize(
    ("device", "stable", "plain"),
    [
        ("/dev/sda1", "UUID=root", "/dev/vda1"),
        ("/dev/hda5", "PARTUUID=p-5", "/dev/vda5"),
        ("/dev/xvdb", "UUID=data", "/dev/vdb"),
        ("/dev/sdb7", "/dev/vdb7", "/dev/vdb7"),
        ("/dev/sdc1", None, None),
        ("/dev/nvme0n1p1", "UUID=root", "/dev/vda1"),
    ],
)
def test_translation(device: str, stable: str | None, plain: str | None) -> None:
    assert (TWO.stable(device), TWO.plain(device)) == (stable, plain)


def test_disks_are_counted_by_their_controller() -> None:
    assert MIXED.plain("/dev/sda1") == "/dev/vda1"
    assert MIXED.plain("/dev/sdb1") == "/dev/vdc1"
    assert MIXED.plain("/dev/nvme0n1p2") == "/dev/vdb2"
    assert MIXED.plain("/dev/sdc1") is None


def test_a_name_that_tells_no_number_means_the_only_disk() -> None:
    assert ONE.stable("/dev/disk/by-id/ata-VBOX_1-part2") == "UUID=swap"
    assert TWO.stable("/dev/disk/by-id/ata-VBOX_1-part2") is None


def in_file(path: str, text: str, names: DeviceMap = TWO) -> devices.Remapped:
    results = []
    for where in (w for w in devices.PLACES if path in w.patterns):
        results.append(devices.remap_file(text, where, names))
        text = results[-1].text
    moved = {old: new for result in results for old, new in result.moved.items()}
    unknown = tuple(device for result in results for device in result.unknown)
    return devices.Remapped(text, moved, unknown)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("/dev/sda1 / ext4 defaults 0 1\n", "UUID=root / ext4 defaults 0 1\n"),
        ("  /dev/sda2\tnone swap sw 0 0\n", "  UUID=swap\tnone swap sw 0 0\n"),
        ("# /dev/sda1 / ext4\n", "# /dev/sda1 / ext4\n"),
        ("UUID=x / ext4 defaults\n", "UUID=x / ext4 defaults\n"),
        ("/dev/sr0 /media/cdrom0 udf noauto\n", "/dev/sr0 /media/cdrom0 udf noauto\n"),
        ("/dev/mapper/vg-a /a xfs\n", "/dev/mapper/vg-a /a xfs\n"),
        (
            "UUID=x / btrfs rw,device=/dev/sdb,device=/dev/sda2,ssd 0 0\n",
            "UUID=x / btrfs rw,device=/dev/vdb,device=/dev/vda2,ssd 0 0\n",
        ),
        ("//srv/dev/sda1 /mnt cifs\n", "//srv/dev/sda1 /mnt cifs\n"),
        ("/dev/sda1 / ext4\n/dev/sda5 /x ext4", "UUID=root / ext4\nPARTUUID=p-5 /x ext4"),
    ],
)
def test_fstab(before: str, after: str) -> None:
    assert in_file("/etc/fstab", before).text == after


def test_what_is_unknown_stays_and_is_told() -> None:
    result = in_file("/etc/fstab", "/dev/sdq1 /q ext4\n/dev/sda1 / ext4\n")
    assert result.text == "/dev/sdq1 /q ext4\nUUID=root / ext4\n"
    assert result.unknown == ("/dev/sdq1",)
    assert result.moved == {"/dev/sda1": "UUID=root"}


@pytest.mark.parametrize(
    ("path", "before", "after"),
    [
        ("/etc/crypttab", "c /dev/sda2 none luks\n", "c UUID=swap none luks\n"),
        ("/etc/crypttab", "c UUID=1 /dev/urandom luks\n", "c UUID=1 /dev/urandom luks\n"),
        ("/etc/crypttab", "#c /dev/sda2 none\n", "#c /dev/sda2 none\n"),
        ("/etc/initramfs-tools/conf.d/*", "RESUME=/dev/sda2\n", "RESUME=UUID=swap\n"),
        ("/etc/initramfs-tools/conf.d/*", "RESUME=none\n", "RESUME=none\n"),
        ("/boot/grub/device.map", "(hd0)\t/dev/sda\n", "(hd0)\t/dev/vda\n"),
        ("/boot/grub/device.map", "(hd1) /dev/disk/by-id/x\n", "(hd1) /dev/disk/by-id/x\n"),
        ("/etc/mdadm/mdadm.conf", "DEVICE /dev/sda1 /dev/sdb1\n", "DEVICE /dev/vda1 /dev/vdb1\n"),
        ("/etc/mdadm/mdadm.conf", "ARRAY /dev/md0 UUID=1\n", "ARRAY /dev/md0 UUID=1\n"),
        (
            "/etc/lvm/lvm.conf",
            '\tfilter = [ "a|/dev/sda2|", "r|.*|" ]\n',
            '\tfilter = [ "a|/dev/vda2|", "r|.*|" ]\n',
        ),
        (
            "/etc/lvm/lvm.conf",
            '\tglobal_filter = [ "a|^/dev/sda.*|", "r|.*|" ]\n',
            '\tglobal_filter = [ "a|^/dev/vda.*|", "r|.*|" ]\n',
        ),
        (
            "/etc/lvm/lvm.conf",
            'filter=["a|/dev/sd.*|", "a|/dev/sd[a-z]2|", "r|.*|"]\n',
            'filter=["a|/dev/vd.*|", "a|/dev/vd[a-z]2|", "r|.*|"]\n',
        ),
        ("/etc/mdadm/mdadm.conf", "DEVICE /dev/sd*\n", "DEVICE /dev/vd*\n"),
        (
            "/var/cache/debconf/config.dat",
            "Name: grub-pc/install_devices\nTemplate: x\nValue: /dev/sda\nOwners: grub-pc\n",
            "Name: grub-pc/install_devices\nTemplate: x\nValue: /dev/vda\nOwners: grub-pc\n",
        ),
        (
            "/var/cache/debconf/config.dat",
            "Name: x\nValue: /dev/sda\n",
            "Name: x\nValue: /dev/sda\n",
        ),
    ],
)
def test_other_files(path: str, before: str, after: str) -> None:
    assert in_file(path, before).text == after


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("linux /vmlinuz root=/dev/sda1 ro\n", "linux /vmlinuz root=UUID=root ro\n"),
        ('X="resume=/dev/sda2"\n', 'X="resume=UUID=swap"\n'),
        ("set root='hd0,msdos1'\n", "set root='hd0,msdos1'\n"),
        ("# kopt=root=/dev/sda1 ro\n", "# kopt=root=UUID=root ro\n"),
        ("root=/dev/mapper/vg-root\n", "root=/dev/mapper/vg-root\n"),
        ("notroot=/dev/sda1\n", "notroot=/dev/sda1\n"),
    ],
)
def test_arguments(before: str, after: str) -> None:
    assert devices.remap(before, devices.ARGUMENTS, TWO.stable).text == after


def test_a_uuid_that_two_have_names_neither() -> None:
    tags = {
        (0, 1): {"UUID": "same", "PART_ENTRY_UUID": "p1"},
        (1, 1): {"UUID": "same", "PART_ENTRY_UUID": "p2"},
        (0, 2): {"UUID": "own", "PART_ENTRY_UUID": "p3"},
        (0, 3): {"UUID": 'evil" rw', "TYPE": "x"},
        (1, 2): {},
    }
    assert devices.unique_specs(tags) == {
        (0, 1): "PARTUUID=p1",
        (1, 1): "PARTUUID=p2",
        (0, 2): "UUID=own",
    }


@pytest.mark.parametrize(
    ("text", "names"),
    [("/dev/sr0 /cd udf\nUUID=x / ext4\n", False), ("/dev/sdq7 /q ext4\n", True), ("", False)],
)
def test_whether_a_text_names_disks_at_all(text: str, names: bool) -> None:
    assert devices.names_disks(text, devices.PLACES[0]) is names


def test_a_debconf_database_made_to_take_forever_does_not() -> None:
    text = "Name: grub-pc/install_devices\n" * 100_000
    assert not in_file("/var/cache/debconf/config.dat", text).moved
