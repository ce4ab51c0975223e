"""Descriptors as ESXi writes them, and those that are refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures.vmdk import write_vmdk
from tests.vmdk.disks import changed, check_file, content
from v2v.errors import SourceError
from v2v.types import MiB
from v2v.vmdk import LocalStore, open_disk

BASE = content(1, MiB)
TOP = changed(content(1, 3 * MiB), 1)[:MiB]

BASE_TEXT = """\
# Disk DescriptorFile
version=1
encoding="UTF-8"
CID=7a2c8b6e
parentCID=ffffffff
isNativeSnapshot="no"
createType="vmfs"

# Extent description
RW 2048 VMFS "web-flat.vmdk"

# Change Tracking File
changeTrackPath="web-ctk.vmdk"

# The Disk Data Base
#DDB

ddb.adapterType = "lsilogic"
ddb.deletable = "true"
ddb.encoding = "UTF-8"
ddb.geometry.cylinders = "2088"
ddb.geometry.heads = "255"
ddb.geometry.sectors = "63"
ddb.longContentID = "0c2e2e2c8b5d6a3c4f0d1e2f7a2c8b6e"
ddb.objectParentUri = ""
ddb.thinProvisioned = "1"
ddb.toolsInstallType = "4"
ddb.toolsVersion = "11365"
ddb.uuid = "60 00 C2 9b 8e 5f 60 0c-4d 19 f3 52 0c 56 92 1c"
ddb.virtualHWVersion = "14"
"""

CHILD_TEXT = """\
# Disk DescriptorFile
version=4
encoding="UTF-8"
CID=fffffffe
parentCID=7a2c8b6e
isNativeSnapshot="no"
createType="{type}"
parentFileNameHint="{parent}"
# Extent description
RW 2048 {kind} "{data}"

# Change Tracking File
changeTrackPath="web-000001-ctk.vmdk"

# The Disk Data Base
#DDB

ddb.grain = "8"
ddb.longContentID = "5a7e4b9b1f0d1e2f3c4d5e6ffffffffe"
ddb.toolsVersion = "11365"
"""


@pytest.fixture
def store() -> Iterator[LocalStore]:
    with LocalStore() as store:
        yield store


def base(folder: Path, text: str = BASE_TEXT) -> Path:
    path = write_vmdk(folder, "web", BASE)
    path.write_text(text)
    return path


def refused(store: LocalStore, path: Path, id: str) -> SourceError:
    with pytest.raises(SourceError) as caught:
        open_disk(store, str(path))
    assert caught.value.id == id, caught.value.message
    return caught.value


def test_a_base_disk_of_esxi(tmp_path: Path) -> None:
    check_file(base(tmp_path), BASE)
    for other in ("\r\n", "\n\n"):
        check_file(base(tmp_path, BASE_TEXT.replace("\n", other)), BASE)


@pytest.mark.parametrize("kind", ["vmfsSparse", "seSparse"])
@pytest.mark.parametrize("parent", ["web.vmdk", "/vmfs/volumes/5f12-3/web/web.vmdk"])
def test_a_snapshot_of_esxi(tmp_path: Path, kind: str, parent: str) -> None:
    base(tmp_path)
    path = write_vmdk(tmp_path, "web-000001", TOP, kind=kind, below=BASE)
    data = {"vmfsSparse": "web-000001-delta.vmdk", "seSparse": "web-000001-sesparse.vmdk"}[kind]
    text = CHILD_TEXT.format(type=kind, kind=kind.upper(), data=data, parent=parent)
    path.write_text(text)
    check_file(path, TOP)


@pytest.mark.parametrize(
    "more",
    [
        'ddb.nativeParentCID = "7a2c8b6e"\nddb.nativeParentHint = "base.vmdk"',
        'ddb.iofilters = "vmwarelwd"\nddb.sidecars = "web_1-5f.vmfd,1;"',
        "# createType and parentCID are told above",
        'ddb.comment = ""',
    ],
)
def test_what_only_qemu_would_misread_is_read(tmp_path: Path, more: str) -> None:
    """It looks for words anywhere in the text; here nobody else reads it."""
    check_file(base(tmp_path, BASE_TEXT + more + "\n"), BASE)


def test_the_content_number_is_that_of_its_line(tmp_path: Path) -> None:
    base(tmp_path, BASE_TEXT.replace("CID=7a2c8b6e", "# CID=00000009\nCID=7a2c8b6e"))
    path = write_vmdk(
        tmp_path,
        "top",
        TOP,
        kind="seSparse",
        below=BASE,
        parent="web.vmdk",
        parent_cid=0x7A2C8B6E,
    )
    check_file(path, TOP)


@pytest.mark.parametrize(
    ("old", "new", "id"),
    [
        ('"vmfs"', '"vmfsRawDeviceMap"', "image-unsupported"),
        ('"vmfs"', '"vmfsPassthroughRawDeviceMap"', "image-unsupported"),
        ("VMFS ", "VMFSRDM ", "image-unsupported"),
        ('"vmfs"', '"vsanSparse"', "image-unsupported"),
        ('"vmfs"', '"seSparse"', "image-unsupported"),
        ('VMFS "web-flat.vmdk"', "ZERO", "image-unsupported"),
        ("RW 2048", "NOACCESS 2048", "image-unsupported"),
        ("RW 2048", "RW 0", "image-corrupt"),
        ("RW 2048", "RW 2049", "image-truncated"),
        ("RW 2048", "RW 999999999999999", "image-truncated"),
        ("RW 2048", "RW 9999999999999999", "image-corrupt"),
        ("CID=7a2c8b6e", "CID=7a2c8b6ez", "image-corrupt"),
        ("parentCID=ffffffff", "parentCID=7a2c8b6e", "image-corrupt"),
        ("version=1", "version=1\nversion=2", "image-corrupt"),
        ("version=1", "an odd line", "image-corrupt"),
        ("version=1", 'encryptionKeys="x"', "image-unsupported"),
    ],
)
def test_odd_descriptors(tmp_path: Path, store: LocalStore, old: str, new: str, id: str) -> None:
    assert BASE_TEXT.count(old) == 1 or old == "CID=7a2c8b6e"
    refused(store, base(tmp_path, BASE_TEXT.replace(old, new)), id)


def test_a_descriptor_without_end(tmp_path: Path, store: LocalStore) -> None:
    refused(store, base(tmp_path, BASE_TEXT + "#\n" * MiB), "image-corrupt")
    lines = 'RW 1 VMFS "web-flat.vmdk"\n' * 5000
    refused(store, base(tmp_path, BASE_TEXT + lines), "image-corrupt")


def test_many_parts(tmp_path: Path) -> None:
    """As of a disk of two terabytes that is split."""
    lines = "".join(f'RW 2 FLAT "web-flat.vmdk" {at}\n' for at in range(0, 2048, 2))
    text = BASE_TEXT.replace('RW 2048 VMFS "web-flat.vmdk"\n', lines)
    check_file(base(tmp_path, text.replace('"vmfs"', '"twoGbMaxExtentFlat"')), BASE)


@pytest.mark.parametrize("offset", ["", " 0", " 8"])
def test_data_of_vmfs_with_and_without_an_offset(tmp_path: Path, offset: str) -> None:
    text = BASE_TEXT.replace(
        'RW 2048 VMFS "web-flat.vmdk"', f'RW 2040 VMFS "web-flat.vmdk"{offset}'
    )
    start = int(offset or 0) * 512
    check_file(base(tmp_path, text), BASE[start : start + 2040 * 512])
