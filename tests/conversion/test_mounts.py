"""fstab and crypttab, and which device of the appliance each of their names means."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conversion.mounts import parse_crypttab, parse_fstab, wanted
from conversion.space import Room, too_full
from conversion.volumes import Filesystem, Volumes, resolve
from v2v.types import MiB

FSTAB = """\
# <file system> <mount point>   <type>  <options>       <dump>  <pass>
UUID=aaaa /               ext4    errors=remount-ro 0       1
/dev/sda5 none            swap    sw              0       0
/dev/sda2 /var/log        xfs     defaults        0       2
LABEL=var /var            ext4
/dev/sda1 /boot           ext2    noauto
/dev/sdb1 /my\\040data     btrfs   rw,subvol=/@data
/dev/sr0  /media/cdrom0   udf,iso9660 user,noauto 0       0
nas:/vol  /net            nfs     defaults        0       0
//nas/x   /smb            cifs    defaults        0       0
tmpfs     /tmp            tmpfs   defaults        0       0
/dev/sdc1 /later          ext4    noauto          0       0
/srv/a    /srv/b          none    bind            0       0
/dev/sdd1 /../etc         ext4    defaults        0       0
/dev/sdd2 relative        ext4
short
"""


def test_what_is_mounted_parents_first():
    assert [(e.spec, e.mountpoint) for e in wanted(parse_fstab(FSTAB))] == [
        ("/dev/sda1", "/boot"),
        ("/dev/sdb1", "/my data"),
        ("LABEL=var", "/var"),
        ("/dev/sda2", "/var/log"),
    ]


def test_the_subvolume_of_a_btrfs():
    entry = next(e for e in parse_fstab(FSTAB) if e.type == "btrfs")
    assert entry.subvolume == "@data"


def test_an_fstab_without_end_is_cut():
    assert len(parse_fstab("/dev/sda1 /x ext4\n" * 10_000)) == 200


@given(st.text(max_size=300))
def test_no_text_makes_it_fail(text):
    wanted(parse_fstab(text))
    parse_crypttab(text)


ROOT = Filesystem("/dev/sda1", "ext4", uuid="aaaa-1", label="root", partuuid="c0ffee-01")
DATA = Filesystem("/dev/sdb1", "xfs", uuid="bbbb-2", partlabel="data")
SNAPSHOT = Filesystem("/dev/vg/snap", "ext4", uuid="aaaa-1")
LUKS = Filesystem("/dev/sda5", "crypto_LUKS", uuid="cccc-3")
INSIDE = Filesystem("/dev/mapper/v2v-0", "ext4", uuid="dddd-4", container="/dev/sda5")
LV = Filesystem("/dev/my-vg/var", "ext4", lv_uuid="varvar")
VOLUMES = Volumes((ROOT, DATA, SNAPSHOT, LUKS, INSIDE, LV), ())


@pytest.mark.parametrize(
    ("spec", "controllers", "found"),
    [
        ("UUID=aaaa-1", (None, None), ROOT),
        ("UUID=AAAA-1", (None, None), ROOT),
        ('UUID="aaaa-1"', (None, None), ROOT),
        ("LABEL=root", (None, None), ROOT),
        ("PARTUUID=c0ffee-01", (None, None), ROOT),
        ("PARTLABEL=data", (None, None), DATA),
        ("/dev/disk/by-uuid/bbbb-2", (None, None), DATA),
        ("/dev/disk/by-partuuid/c0ffee-01", (None, None), ROOT),
        ("UUID=", (None, None), None),
        ("UUID=eeee", (None, None), None),
        ("/dev/sda1", (None, None), ROOT),
        ("/dev/hda1", ("ide", "scsi"), ROOT),
        ("/dev/xvdb1", (None, None), DATA),
        ("/dev/vdb1", (None, None), DATA),
        ("/dev/nvme0n1p1", ("scsi", "nvme"), DATA),
        ("/dev/sda1", ("nvme", "scsi"), DATA),
        ("/dev/sdc1", (None, None), None),
        ("/dev/my-vg/var", (None, None), LV),
        ("/dev/mapper/my--vg-var", (None, None), LV),
        ("/dev/mapper/sda5_crypt", (None, None), INSIDE),
        ("/dev/mapper/other", (None, None), None),
        ("/dev/disk/by-id/dm-name-my--vg-var", (None, None), LV),
        ("/dev/disk/by-id/dm-name-sda5_crypt", (None, None), INSIDE),
        ("/dev/disk/by-id/dm-uuid-LVM-vgvgvgvarvar", (None, None), LV),
        ("/dev/disk/by-id/dm-uuid-LVM-vgvgvgother", (None, None), None),
    ],
)
def test_names_of_devices(spec, controllers, found):
    mapped = parse_crypttab("# name device\nsda5_crypt UUID=cccc-3 none luks\n")
    assert resolve(spec, VOLUMES, controllers, mapped) == found


@pytest.mark.parametrize(
    ("room", "full"),
    [
        (Room("/", 100 * MiB, 100), False),
        (Room("/", 100 * MiB - 1, 100), True),
        (Room("/boot", 50 * MiB, None), False),
        (Room("/boot", 50 * MiB - 1, None), True),
        (Room("/var", 10 * MiB, None), False),
        (Room("/var", 10 * MiB - 1, None), True),
        (Room("/var", 10 * MiB, 99), True),
    ],
)
def test_the_room_that_is_needed(room, full):
    error = too_full(room)
    assert (error is not None) == full
    assert error is None or room.mountpoint in error.message
