"""-i vmx: what its files say, what is refused, and what is told."""

from __future__ import annotations

import os
import shutil
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fixtures.vmdk import write_vmdk
from fixtures.vmx import disk, nic, vmsd_text, write_chain, write_vm
from tests.contract.input_suite import read_all
from tests.fakes.disks import disk_content
from tests.inputs.golden import FOLDER, check_golden
from v2v import nbdkit
from v2v.errors import UsageError, V2VError
from v2v.events import Event, Warned
from v2v.inputs._ssh.place import SshPlace
from v2v.inputs._vmx.places import RemotePlace
from v2v.inputs._vmx.remote import RemoteFolder
from v2v.inputs._vmx.text import parse_vmx
from v2v.inputs._vmx.vm import read_folder
from v2v.inputs.vmx import VmxInput, VmxOptions
from v2v.run import Run
from v2v.types import GiB, MiB, Nic, Removable, Source
from v2v.vmdk import LocalStore

CONTENT = disk_content(1)
READ = Callable[..., Source]


@pytest.fixture
def read(run: Run) -> READ:
    def read(path: Path, **options: object) -> Source:
        return VmxInput(VmxOptions(**options), [str(path)]).read_source(run)  # type: ignore[arg-type]

    return read


@pytest.fixture
def warned(events_seen: list[Event]) -> Callable[[], set[str]]:
    return lambda: {event.id for event in events_seen if isinstance(event, Warned)}


def vm(folder: Path, entries: dict[str, str] | None = None, **more: object) -> Path:
    """A VM with a good disk at scsi0:0, and whatever else its file says."""
    write_vmdk(folder, "web", CONTENT)
    return write_vm(folder, disk("scsi0:0", "web.vmdk") | (entries or {}), **more)  # type: ignore[arg-type]


def refused(read: READ, path: Path, id: str, **options: object) -> V2VError:
    with pytest.raises(V2VError) as caught:
        read(path, **options)
    assert caught.value.id == id, caught.value.message
    assert caught.value.hint
    return caught.value


def test_a_folder_with_one_vm_is_that_vm(read: READ, tmp_path: Path) -> None:
    refused(read, tmp_path, "vmx-folder")
    path = vm(tmp_path)
    assert read(tmp_path) == read(path)
    (tmp_path / "other.vmx").touch()
    assert "other.vmx, web.vmx" in str(refused(read, tmp_path, "vmx-folder"))


# Whole VMs ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "disks", "warnings"),
    [
        ("esxi7", ("db01", "db01_2", "db01_10", "db01_n"), {"vmx-disk-moved"}),
        ("workstation", ("Windows 10", "data"), {"vmx-disk-moved"}),
        ("esx3", ("legacy", "legacy_1"), set()),
    ],
)
def test_golden(tmp_path: Path, read: READ, warned, name: str, disks, warnings) -> None:
    for number, one in enumerate(disks):
        kind = "monolithicSparse" if name == "workstation" else "vmfs"
        write_vmdk(tmp_path, one, disk_content(number), kind=kind)
    path = Path(shutil.copy(FOLDER / f"{name}.vmx", tmp_path))
    (tmp_path / "db01.nvram").write_bytes(b"x")
    check_golden(read(path), FOLDER / f"{name}.txt", tmp_path)
    assert warned() == warnings


def test_a_list_of_snapshots_that_is_a_link_to_elsewhere_is_not_read(
    tmp_path: Path, read: READ, events_seen: list[Event]
) -> None:
    """What is wrong in it would be told, and so what is in it."""
    (tmp_path / "secret").write_text("root:hash")
    path = vm(tmp_path / "vm")
    path.with_suffix(".vmsd").symlink_to("../secret")
    assert read(path).snapshots == ()
    told = [event for event in events_seen if isinstance(event, Warned)]
    assert [event.id for event in told] == ["image-names-other-file"]
    assert "hash" not in str(told)
    refused(read, path, "image-names-other-file", snapshot="clean")


def test_golden_with_snapshots(tmp_path: Path, read: READ, warned) -> None:
    write_chain(tmp_path, [disk_content(n) for n in range(3)])
    path = Path(shutil.copy(FOLDER / "snapshots.vmx", tmp_path))
    snapshots = [("clean", {"scsi0:0": "web.vmdk"}), ("1.2|beta", {"scsi0:0": "web-000001.vmdk"})]
    path.with_suffix(".vmsd").write_text(vmsd_text(snapshots))
    source = read(path)
    check_golden(source, FOLDER / "snapshots.txt", tmp_path)
    names = {Path(file).name for file in source.disks[0].files}
    assert {"web-000002.vmdk", "web-000001-sesparse.vmdk", "web-flat.vmdk"} < names
    then = read(path, snapshot="1.2|beta")
    assert then.disks[0].location == str(tmp_path / "web-000001.vmdk")
    assert warned() == set()


def test_the_generation_id_is_what_the_guest_saw(tmp_path: Path, read: READ) -> None:
    """A guest of VMware with these shows 8987940a09512cc5:e81510634ff550b9; with the UUID given
    here, QEMU shows it the same."""
    entries = {"vm.genid": "-8536691797830587195", "vm.genidX": "-1723453263670062919"}
    assert read(vm(tmp_path, entries)).genid == "09512cc5-940a-8987-b950-f54f631015e8"


@pytest.mark.parametrize("number", ["", "0", "x", "9" * 19, "9" * 30])
def test_a_generation_id_that_is_none(tmp_path: Path, read: READ, number: str) -> None:
    assert read(vm(tmp_path, {"vm.genid": number, "vm.genidX": "0"})).genid is None


@pytest.mark.parametrize(
    ("key", "value", "tpm"),
    [
        ("vtpm.present", "TRUE", True),
        ("vtpm.present", "FALSE", False),
        ("managedvm.autoAddVTPM", "software", True),
        ("managedVM.autoAddVTPM", "none", False),
    ],
)
def test_a_tpm_in_the_words_of_each_product(
    tmp_path: Path, read: READ, key: str, value: str, tpm: bool
) -> None:
    assert read(vm(tmp_path, {"firmware": "efi", key: value})).tpm is tpm


def test_a_disk_without_a_file_is_told_as_that(tmp_path: Path, read: READ) -> None:
    error = refused(read, vm(tmp_path, {"scsi0:1.present": "TRUE"}), "vmx-disk-missing")
    assert "does not name" in error.message


# Syntax -------------------------------------------------------------------------------------------


def parsed(run: Run, text: str | bytes) -> dict[str, str]:
    data = text if isinstance(text, bytes) else text.encode()
    return dict(parse_vmx(data, "a.vmx", run).entries)


@pytest.mark.parametrize(
    ("text", "entries"),
    [
        ("", {}),
        ("\n# a comment\n   \n", {}),
        ('Key = "Value"\n', {"key": "Value"}),
        ('  a.B:c  =  "x y"  # why\r\n', {"a.b:c": "x y"}),
        ("a = plain\n", {"a": "plain"}),
        ('a=""', {"a": ""}),
        ("a =", {"a": ""}),
        ('a = "x|22y|7Cz|0D|0A"', {"a": 'x"y|z\r\n'}),
        ('a = "100|"', {"a": "100|"}),
        ('a = "#1"', {"a": "#1"}),
        ('a = "1"\rb = "2"', {"a": "1", "b": "2"}),
        ('\ufeffa = "é"', {"a": "é"}),
        (b'a = "\xe9"', {"a": "é"}),
        (b'.encoding = "windows-1252"\na = "\xe9"', {".encoding": "windows-1252", "a": "é"}),
        ('.encoding = "GBK"\na = "虚拟"'.encode("gbk"), {".encoding": "GBK", "a": "虚拟"}),
        (
            'a = "ソ表"\n.encoding = Shift_JIS'.encode("cp932"),
            {"a": "ソ表", ".encoding": "Shift_JIS"},
        ),
        (b'.encoding = "UTF-8"\na = "|C3|A9"', {".encoding": "UTF-8", "a": "é"}),
    ],
)
def test_syntax(run: Run, warned, text: str | bytes, entries: dict[str, str]) -> None:
    assert parsed(run, text) == entries
    assert warned() == set()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b'a = "1"\nno key\n', "line 2"),
        (b'a = "1"\n\n\nb = "open\n', "line 4"),
        (b'a = "1" b = "2"', "line 1"),
        (b'= "1"', "line 1"),
        (b'a = "1"\nb = "\0"', "line 2"),
        ('a = "1"'.encode("utf-16"), "zero bytes"),
        (b"a = 1\n" * MiB, "larger"),
        (b"\x7fELF\2\1\1 \n", "line 1"),
    ],
)
def test_bad_syntax_is_told_with_its_line(run: Run, text: bytes, words: str) -> None:
    with pytest.raises(V2VError, match=words) as caught:
        parsed(run, text)
    assert caught.value.id == "vmx-invalid"


def test_of_two_values_the_last_counts_and_is_told(run: Run, warned) -> None:
    assert parsed(run, 'a = "1"\nA = "1"\n') == {"a": "1"}
    assert warned() == set()
    assert parsed(run, 'a = "1"\nA = "2"\n') == {"a": "2"}
    assert warned() == {"vmx-repeated"}


@pytest.mark.parametrize("name", ["klingon", "rot13", "base64", "undefined", "utf-16"])
def test_an_encoding_that_is_none_of_vmwares(run: Run, warned, name: str) -> None:
    assert parsed(run, f'.encoding = "{name}"\na = "é"')["a"] == "é"
    assert warned() == {"vmx-encoding"}


# Machine ------------------------------------------------------------------------------------------


def test_what_is_not_said(tmp_path: Path, read: READ) -> None:
    source = read(vm(tmp_path))
    assert (source.name, source.vcpus, source.nics, source.removables) == ("web", 1, (), ())
    for name in ("uuid", "genid", "osinfo", "description", "sound", "rtc_utc", "nvram", "video"):
        assert getattr(source, name) is None


def test_memory_that_is_not_said_is_told(tmp_path: Path, read: READ, warned) -> None:
    assert read(vm(tmp_path, {"memSize": ""})).memory == 2 * GiB
    assert warned() == {"memory-unknown"}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("memSize", "0"),
        ("memSize", "-4"),
        ("memSize", "4G"),
        ("memSize", "9" * 30),
        ("memSize", str(1 << 27)),
        ("numvcpus", "0"),
        ("numvcpus", "4097"),
        ("numvcpus", "two"),
    ],
)
def test_numbers_that_no_vm_has(tmp_path: Path, read: READ, key: str, value: str) -> None:
    assert key in refused(read, vm(tmp_path, {key: value}), "vmx-value").message


def test_names_are_made_safe_to_show(tmp_path: Path, read: READ) -> None:
    path = write_vm(tmp_path, disk("scsi0:0", "web.vmdk"))
    write_vmdk(tmp_path, "web", CONTENT)
    path.write_text(path.read_text() + 'displayName = "a|1B[31mb|0Ac"\nannotation = "x|1By|0Az"\n')
    source = read(path)
    assert source.name == "a\ufffd[31mb c"
    assert source.description == "x\ufffdy\nz"


def test_names_and_descriptions_without_end_are_cut(tmp_path: Path, read: READ) -> None:
    write_vmdk(tmp_path, "web", CONTENT)
    found = read(vm(tmp_path, {"displayName": "n" * 9999, "annotation": "w" * 9999}))
    assert (len(found.name), len(found.description or "")) == (255, 4096)


def test_an_encrypted_vm_is_refused(tmp_path: Path, read: READ) -> None:
    refused(read, vm(tmp_path, {"encryption.data": "abc"}), "vmx-encrypted")


# Network cards ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ({}, Nic(kind="bridge", network="bridged")),
        ({"address": "00:50:56:0A:0b:0c"}, Nic("00:50:56:0a:0b:0c", "bridge", "bridged")),
        (
            {"addressType": "static", "address": "00:50:56:00:00:01", "generatedAddress": "x"},
            Nic("00:50:56:00:00:01", "bridge", "bridged"),
        ),
        (
            {"addressType": "vpx", "address": "x", "generatedAddress": "00:50:56:00:00:02"},
            Nic("00:50:56:00:00:02", "bridge", "bridged"),
        ),
        ({"networkName": "LAN", "connectionType": "bridged"}, Nic(network="LAN")),
        ({"connectionType": "hostonly"}, Nic(network="hostonly")),
        ({"connectionType": "custom", "vnet": "VMnet3"}, Nic(network="VMnet3")),
        ({"dvs.portgroupId": "dvportgroup-7"}, Nic(network="dvportgroup-7")),
        (
            {"networkName": "LAN", "virtualDev": "VMXNET3", "pciSlotNumber": "-1"},
            Nic(network="LAN", model="vmxnet3"),
        ),
    ],
)
def test_network_cards(tmp_path: Path, read: READ, entries: dict[str, str], expected: Nic) -> None:
    keys = {f"ethernet3.{key}": value for key, value in ({"present": "TRUE"} | entries).items()}
    assert read(vm(tmp_path, keys)).nics == (expected,)


def test_a_mac_that_is_none_is_told(tmp_path: Path, read: READ, warned) -> None:
    nics = read(vm(tmp_path, nic(0, "00:50:56:zz:00:01"))).nics
    assert nics and nics[0].mac is None
    assert warned() == {"nic-mac-invalid"}


@pytest.mark.parametrize(
    ("entries", "warnings"),
    [
        (nic(0, "00:50:56:00:00:01", present=""), {"vmx-nic-absent"}),
        (nic(0, "00:50:56:00:00:01", present="maybe"), {"vmx-nic-absent"}),
        ({"ethernet0.networkName": "LAN"}, {"vmx-nic-absent"}),
        (nic(0, "00:50:56:00:00:01", present="FALSE"), set()),
        ({"ethernet0.pciSlotNumber": "33", "ethernet0.startConnected": "TRUE"}, set()),
    ],
)
def test_cards_that_are_left_out(tmp_path: Path, read: READ, warned, entries, warnings) -> None:
    """What is left over of a card that was removed is none; one that is not said to be there is
    told, as such a disk is."""
    assert read(vm(tmp_path, entries)).nics == ()
    assert warned() == warnings


def test_a_card_at_a_distributed_switch_alone_is_not_bridged(
    tmp_path: Path, read: READ, warned
) -> None:
    entries = {"ethernet0.present": "TRUE", "ethernet0.dvs.switchId": "50 1f 2c 60"}
    assert read(vm(tmp_path, entries)).nics == (Nic(network="dvs"),)
    assert warned() == {"nic-connection"}


def test_cards_are_in_the_order_of_their_numbers(tmp_path: Path, read: READ) -> None:
    entries: dict[str, str] = {}
    for number in (10, 2, 0):
        entries |= nic(number, f"00:50:56:00:00:{number:02}")
    assert [one.mac[-2:] for one in read(vm(tmp_path, entries)).nics or () if one.mac] == [
        *("00", "02", "10")
    ]


# Disks --------------------------------------------------------------------------------------------


def test_order_of_disks(tmp_path: Path, read: READ) -> None:
    nodes = ["ide0:0", "sata1:0", "sata0:3", "nvme0:1", "scsi1:0", "scsi0:10", "scsi0:2"]
    entries: dict[str, str] = {}
    for node in nodes:
        name = node.replace(":", "-")
        write_vmdk(tmp_path, name, CONTENT)
        entries |= disk(node, f"{name}.vmdk")
    disks = read(write_vm(tmp_path, entries)).disks
    expected = ["scsi0-2", "scsi0-10", "scsi1-0", "nvme0-1", "sata0-3", "sata1-0", "ide0-0"]
    assert [Path(one.location).stem for one in disks] == expected
    assert [one.controller for one in disks] == [e.rstrip("-0123456789") for e in expected]


@pytest.mark.parametrize(
    ("entries", "removables"),
    [
        (disk("ide0:0", "x.iso"), (Removable("cdrom", "ide"),)),
        (disk("scsi0:3", "x.iso", deviceType="cdrom-image"), (Removable("cdrom", "scsi"),)),
        (disk("sata0:0", "", deviceType="atapi-cdrom"), (Removable("cdrom", "sata"),)),
        (disk("sata0:0", "x.vmdk", deviceType="cdrom-raw"), (Removable("cdrom", "sata"),)),
        (disk("ide1:0", "auto detect"), (Removable("cdrom", "ide"),)),
        (disk("ide1:0", "x.iso") | {"ide1:0.present": "FALSE"}, ()),
        ({"floppy0.present": "TRUE"}, (Removable("floppy"),)),
        ({"floppy0.present": "FALSE"}, ()),
    ],
)
def test_removable_media(tmp_path: Path, read: READ, warned, entries, removables) -> None:
    source = read(vm(tmp_path, entries))
    assert (len(source.disks), source.removables) == (1, removables)
    assert warned() == set()


@pytest.mark.parametrize(
    ("entries", "warnings"),
    [
        ({"scsi0:1.fileName": "gone.vmdk"}, {"vmx-disk-absent"}),
        ({"scsi0:1.present": "FALSE", "scsi0:1.fileName": "gone.vmdk"}, set()),
        ({"scsi2.present": "FALSE"} | disk("scsi2:0", "gone.vmdk"), {"vmx-disk-absent"}),
        (disk("scsi0:5", "/dev/sg3", deviceType="scsi-passthru"), {"device-dropped"}),
        ({"scsi0:0.mode": "independent-nonpersistent"}, set()),
    ],
)
def test_drives_that_are_left_out(tmp_path: Path, read: READ, warned, entries, warnings) -> None:
    assert len(read(vm(tmp_path, entries)).disks) == 1
    assert warned() == warnings


@pytest.mark.parametrize(
    ("redo", "warnings"), [("./web.vmdk.REDO_a1", {"vmx-redo-log"}), ("", set())]
)
def test_a_redo_log_is_told(tmp_path: Path, read: READ, warned, redo: str, warnings) -> None:
    read(vm(tmp_path, {"scsi0:0.redo": redo, "scsi0:0.mode": "undoable"}))
    assert warned() == warnings


def test_a_redo_log_does_not_matter_to_a_snapshot(tmp_path: Path, read: READ, warned) -> None:
    snapshots = [("old", {"scsi0:0": "web.vmdk"})]
    read(vm(tmp_path, {"scsi0:0.redo": "x.REDO"}, snapshots=snapshots), snapshot="old")
    assert warned() == set()


@pytest.mark.parametrize("name", ["web.vmdk", "./web.vmdk", "link.vmdk"])
def test_one_disk_at_two_places_is_told(
    tmp_path: Path, read: READ, events_seen: list[Event], name: str
) -> None:
    (tmp_path / "link.vmdk").symlink_to("web.vmdk")
    source = read(vm(tmp_path, disk("sata0:1", name)))
    assert len(source.disks) == 2
    (told,) = [event for event in events_seen if isinstance(event, Warned)]
    assert told.id == "disk-repeated"
    assert "scsi0:0 and sata0:1" in told.text


def test_a_vm_without_disks(tmp_path: Path, read: READ) -> None:
    refused(read, write_vm(tmp_path, {"displayName": "x"}), "vmx-no-disks")


@pytest.mark.parametrize(
    ("name", "id"),
    [
        ("../../etc/shadow", "image-names-other-file"),
        ("/etc/passwd", "image-names-other-file"),
        ("/dev/null", "image-names-other-file"),
        ("nbd://host/export", "image-names-other-file"),
        ("json:{}", "image-names-other-file"),
        ("sub\\web.vmdk", "image-names-other-file"),
        ("link.vmdk", "image-names-other-file"),
        ("fifo.vmdk", "image-names-other-file"),
        (".", "image-names-other-file"),
        ("", "vmx-disk-missing"),
        ("a" * 5000, "image-names-other-file"),
        ("gone.vmdk", "vmx-disk-missing"),
        ("/vmfs/volumes/1234/x/gone.vmdk", "vmx-disk-missing"),
        ("C:\\VMs\\gone.vmdk", "vmx-disk-missing"),
        ("\\\\server\\share\\..", "vmx-disk-missing"),
        ("/" + "a" * 5000, "vmx-disk-missing"),
        ("web-flat.vmdk", "image-format-wrong"),
        ("text.vmdk", "image-format-wrong"),
    ],
)
def test_disk_files_that_are_refused(tmp_path: Path, read: READ, name: str, id: str) -> None:
    folder = tmp_path / "vm"
    path = vm(folder, disk("scsi0:1", name))
    write_vmdk(tmp_path, "other", CONTENT)
    (folder / "link.vmdk").symlink_to("../other.vmdk")
    os.mkfifo(folder / "fifo.vmdk")
    (folder / "text.vmdk").write_text("hello\n")
    refused(read, path, id)


def test_escapes_hide_no_zero_byte(tmp_path: Path, read: READ) -> None:
    path = vm(tmp_path)
    path.write_text(path.read_text() + 'scsi0:1.present = "TRUE"\nscsi0:1.fileName = "a|00b"\n')
    refused(read, path, "image-names-other-file")


def test_a_disk_elsewhere_may_be_allowed(tmp_path: Path, read: READ) -> None:
    other = write_vmdk(tmp_path / "other", "data", CONTENT)
    path = vm(tmp_path / "vm", disk("scsi0:1", str(other)))
    refused(read, path, "image-names-other-file")
    source = read(path, allow_backing=(tmp_path / "other",))
    assert source.disks[1].location == str(other)


@pytest.mark.parametrize("word", ["/vmfs/volumes/123-4/web/data.vmdk", "D:\\VMs\\web\\data.vmdk"])
def test_a_path_of_the_vmware_host_means_the_file_beside(
    tmp_path: Path, read: READ, warned, word: str
) -> None:
    write_vmdk(tmp_path, "data", CONTENT)
    source = read(vm(tmp_path, disk("scsi0:1", word)))
    assert source.disks[1].location == str(tmp_path / "data.vmdk")
    assert warned() == {"vmx-disk-moved"}


def test_data_without_its_descriptor(tmp_path: Path, read: READ) -> None:
    path = vm(tmp_path)
    (tmp_path / "web.vmdk").unlink()
    assert "web-flat.vmdk is only the data" in str(refused(read, path, "vmx-disk-missing").hint)


@pytest.mark.parametrize("kind", ["vmfsSparse", "seSparse"])
def test_snapshots_are_read_by_qemu_where_nbdkit_cannot_run_our_reader(
    tmp_path: Path, run: Run, warned, monkeypatch: pytest.MonkeyPatch, need_tool, kind: str
) -> None:
    """It is slow then, which is told."""
    need_tool("qemu-nbd")
    need_tool("nbdkit")
    top = write_chain(tmp_path, [CONTENT, disk_content(2)], kind=kind)[-1]
    vm = VmxInput(VmxOptions(), [str(write_vm(tmp_path, disk("scsi0:0", top.name)))])
    source = vm.read_source(run)
    with vm.serve(source, run) as (endpoint,):
        assert read_all(endpoint) == disk_content(2)
    assert warned() == set()
    monkeypatch.setattr(nbdkit, "python_version", lambda: (2, 7))
    with vm.serve(source, run) as (endpoint,):
        assert read_all(endpoint) == disk_content(2)
    assert warned() == {"vmdk-slow"}


def test_boot_order(tmp_path: Path, read: READ) -> None:
    write_vmdk(tmp_path, "b", CONTENT)
    entries = disk("scsi0:1", "b.vmdk") | {"bios.hddOrder": "sata0:0, scsi0:1,scsi0:0"}
    assert [one.boot_order for one in read(vm(tmp_path, entries)).disks] == [2, 1]


# State --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        *("web.vmx.lck/M123.lck", "web.vmdk.lck/M1.lck", "web.vmem", "564d1234.vmem"),
        *("web-1a2b.vswp", "vmx-web-1-1.vswp", ".lck-3409000000000000"),
    ],
)
def test_a_vm_that_may_run_is_refused(tmp_path: Path, read: READ, name: str) -> None:
    path = vm(tmp_path)
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).touch()
    error = refused(read, path, "source-running")
    assert name.partition("/")[0] in error.message


@pytest.mark.parametrize("name", ["web-Snapshot1.vmem", "web.vmdk.lck/", "vmware.log", "x.lck"])
def test_files_that_a_vm_leaves_when_it_is_off(tmp_path: Path, read: READ, name: str) -> None:
    path = vm(tmp_path)
    if name.endswith("/"):
        (tmp_path / name).mkdir()
    else:
        (tmp_path / name).touch()
    assert read(path)


def test_other_vms_in_the_folder_may_run(tmp_path: Path, read: READ) -> None:
    path = vm(tmp_path)
    (tmp_path / "mail.vmx").touch()
    (tmp_path / "mail.vswp").touch()
    assert read(path)
    (tmp_path / "web.vswp").touch()
    refused(read, path, "source-running")


def test_a_suspended_vm_is_refused_but_its_snapshots_are_not(tmp_path: Path, read: READ) -> None:
    entries = {"checkpoint.vmState": "web-8a.vmss"}
    path = vm(tmp_path, entries, snapshots=[("old", {"scsi0:0": "web.vmdk"})])
    (tmp_path / "web-8a.vmss").touch()
    (tmp_path / "web-8a.vmem").touch()
    refused(read, path, "source-suspended")
    assert read(path, snapshot="old")


def test_a_vm_that_runs_may_be_read_as_a_snapshot_keeps_it(tmp_path: Path, read: READ) -> None:
    """It writes to the topmost file of the chain, which is not read then."""
    write_chain(tmp_path, [CONTENT, disk_content(2)])
    entries = disk("scsi0:0", "web-000001.vmdk")
    path = write_vm(tmp_path, entries, snapshots=[("old", {"scsi0:0": "web.vmdk"})])
    (tmp_path / "web-1a2b.vswp").touch()
    refused(read, path, "source-running")
    assert read(path, snapshot="old").disks[0].location == str(tmp_path / "web.vmdk")


@pytest.mark.parametrize(
    ("node", "mode", "file"),
    [("scsi0:1", "independent-persistent", "data.vmdk"), ("scsi0:0", "persistent", "./web.vmdk")],
)
def test_a_vm_that_runs_and_writes_to_what_its_snapshot_would_read_is_refused(
    tmp_path: Path, read: READ, node: str, mode: str, file: str
) -> None:
    write_chain(tmp_path, [CONTENT, disk_content(2)])
    write_vmdk(tmp_path, "data", CONTENT)
    entries = disk("scsi0:0", "web-000001.vmdk") | disk(node, file, mode=mode)
    path = write_vm(tmp_path, entries, snapshots=[("old", {"scsi0:0": "web.vmdk"})])
    assert read(path, snapshot="old")
    (tmp_path / "web-1a2b.vswp").touch()
    assert node in refused(read, path, "source-running", snapshot="old").message


@pytest.mark.parametrize(
    ("name", "line"),
    [("Consolidate Helper- 0", ""), ("old", 'snapshot.needConsolidate = "TRUE"\n')],
)
def test_snapshots_that_are_being_consolidated_keep_nothing(
    tmp_path: Path, read: READ, warned, name: str, line: str
) -> None:
    write_chain(tmp_path, [CONTENT, disk_content(2)])
    entries = disk("scsi0:0", "web-000001.vmdk")
    path = write_vm(tmp_path, entries, snapshots=[(name, {"scsi0:0": "web.vmdk"})])
    vmsd = path.with_suffix(".vmsd")
    vmsd.write_text(vmsd.read_text() + line)
    assert read(path, snapshot=name)
    assert warned() == set()
    assert read(path)
    assert warned() == {"vmx-consolidation"}
    (tmp_path / "web-1a2b.vswp").touch()
    refused(read, path, "source-consolidating", snapshot=name)


def test_a_vm_that_was_not_shut_down_is_told(tmp_path: Path, read: READ, warned) -> None:
    read(vm(tmp_path, {"cleanShutdown": "FALSE"}))
    assert warned() == {"vmx-not-shut-down"}


# Snapshots ----------------------------------------------------------------------------------------


def test_snapshots_that_are_not_there(tmp_path: Path, read: READ) -> None:
    path = vm(tmp_path, snapshots=[("before update", {"scsi0:0": "web.vmdk"})])
    hint = refused(read, path, "snapshot-unknown", snapshot="before updat").hint
    assert hint == "did you mean before update?"
    refused(read, path, "snapshot-unknown", snapshot="")
    refused(read, path, "snapshot-unknown", snapshot="7")
    assert read(path, snapshot="1")
    path.with_suffix(".vmsd").unlink()
    refused(read, path, "snapshot-unknown", snapshot="before update")


def test_two_snapshots_of_one_name_are_told_apart_by_number(tmp_path: Path, read: READ) -> None:
    write_chain(tmp_path, [CONTENT, disk_content(2), disk_content(3)])
    snapshots = [("x", {"scsi0:0": "web.vmdk"}), ("x", {"scsi0:0": "web-000001.vmdk"})]
    path = write_vm(tmp_path, disk("scsi0:0", "web-000002.vmdk"), snapshots=snapshots)
    hint = str(refused(read, path, "snapshot-ambiguous", snapshot="x").hint)
    assert "uid=1, uid=2" in hint
    for word in ("2", "uid=2"):
        assert read(path, snapshot=word).disks[0].location.endswith("web-000001.vmdk")


@pytest.mark.parametrize("name", ["1", "uid=1"])
def test_two_snapshots_whose_name_is_a_number_are_told_apart_as_the_hint_says(
    tmp_path: Path, read: READ, name: str
) -> None:
    write_chain(tmp_path, [CONTENT, disk_content(2), disk_content(3)])
    snapshots = [(name, {"scsi0:0": "web.vmdk"}), (name, {"scsi0:0": "web-000001.vmdk"})]
    path = write_vm(tmp_path, disk("scsi0:0", "web-000002.vmdk"), snapshots=snapshots)
    if name == "1":
        refused(read, path, "snapshot-ambiguous", snapshot="1")
    assert read(path, snapshot="uid=1").disks[0].location.endswith("web.vmdk")
    assert read(path, snapshot="uid=2").disks[0].location.endswith("web-000001.vmdk")
    refused(read, path, "snapshot-unknown", snapshot="uid=3")


def test_a_name_of_a_snapshot_counts_before_its_number(tmp_path: Path, read: READ) -> None:
    write_chain(tmp_path, [CONTENT, disk_content(2), disk_content(3)])
    snapshots = [("2", {"scsi0:0": "web.vmdk"}), ("1", {"scsi0:0": "web-000001.vmdk"})]
    path = write_vm(tmp_path, disk("scsi0:0", "web-000002.vmdk"), snapshots=snapshots)
    assert read(path, snapshot="1").disks[0].location.endswith("web-000001.vmdk")


@pytest.mark.parametrize(
    ("name", "word"), [("caf\u00e9", "cafe\u0301"), ("cafe\u0301", "caf\u00e9")]
)
def test_a_snapshot_is_found_however_its_letters_are_made_up(
    tmp_path: Path, read: READ, name: str, word: str
) -> None:
    path = vm(tmp_path, snapshots=[(name, {"scsi0:0": "web.vmdk"})])
    assert read(path, snapshot=word).disks


def test_a_disk_that_came_after_the_snapshot_is_left_out(
    tmp_path: Path, read: READ, warned
) -> None:
    write_vmdk(tmp_path, "new", CONTENT)
    snapshots = [("old", {"scsi0:0": "web.vmdk"})]
    path = vm(tmp_path, disk("scsi0:1", "new.vmdk"), snapshots=snapshots)
    assert len(read(path).disks) == 2
    assert warned() == set()
    assert len(read(path, snapshot="old").disks) == 1
    assert warned() == {"snapshot-without-disk"}


@pytest.mark.parametrize("text", ["", "not a key\n", 'snapshot.numSnapshots = "0"\n'])
def test_a_vmsd_that_tells_of_none(tmp_path: Path, read: READ, warned, text: str) -> None:
    path = vm(tmp_path)
    path.with_suffix(".vmsd").write_text(text)
    assert read(path).snapshots == ()
    assert warned() == ({"vmx-invalid"} if text.startswith("not") else set())


def test_a_snapshot_of_a_file_elsewhere_is_refused(tmp_path: Path, read: READ) -> None:
    path = vm(tmp_path / "vm", snapshots=[("bad", {"scsi0:0": "/etc/passwd"})])
    refused(read, path, "image-names-other-file", snapshot="bad")


# The word -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "options", "id"),
    [
        (["https://esxi/vmfs/volumes/ds/web/web.vmx"], {}, "input-transport"),
        (["ssh:///vmfs/volumes/ds/web/web.vmx"], {}, "uri-invalid"),
        (["ssh://esxi/vmfs/a%0Ab.vmx"], {}, "uri-invalid"),
        (["ssh://esxi/vmfs/a.vmx?x=y"], {}, "uri-invalid"),
        (["web"], {"uri": "qemu:///system"}, "uri-invalid"),
        (["web.vmx"], {"transport": "ssh"}, "input-transport"),
        (["ssh://esxi/web.vmx"], {"transport": "vddk"}, "input-transport"),
        (["web.vmx"], {"host_key": "SHA256:x"}, "option-useless"),
        (["web.vmx"], {"reader": "dd"}, "option-useless"),
        (["web.vmx"], {"password_file": "x"}, "option-useless"),
        (["a.vmx", "b.vmx"], {}, "guests-too-many"),
    ],
)
def test_words_that_are_no_file(run: Run, words, options, id: str) -> None:
    with pytest.raises(UsageError) as caught:
        VmxInput(VmxOptions(**options), words).read_source(run)
    assert caught.value.id == id
    assert caught.value.hint


def test_files_that_are_no_file(tmp_path: Path, read: READ) -> None:
    refused(read, tmp_path / "gone.vmx", "source-missing")
    os.mkfifo(tmp_path / "fifo.vmx")
    refused(read, tmp_path / "fifo.vmx", "source-not-a-file")
    refused(read, tmp_path / "\udcff.vmx", "source-name")


def test_a_link_to_a_vmx_means_its_folder(tmp_path: Path, read: READ) -> None:
    path = vm(tmp_path / "vm")
    (tmp_path / "link.vmx").symlink_to(path)
    assert read(tmp_path / "link.vmx").disks[0].location == str(tmp_path / "vm/web.vmdk")


# Hostile files ------------------------------------------------------------------------------------

PLACE = RemotePlace(SshPlace(host="esxi"))

OPENED: list[str] = []  # by the audit hook below, while it is on
WATCHING: list[set[int | None]] = []  # threads that were there before: they are not the test's


def _watch(event: str, args: tuple[object, ...]) -> None:
    ours = any(threading.get_ident() not in others for others in WATCHING)
    if ours and event == "open" and isinstance(args[0], str | bytes):
        OPENED.append(args[0] if isinstance(args[0], str) else args[0].decode(errors="replace"))


sys.addaudithook(_watch)

KEYS = st.sampled_from(
    [
        *("scsi0:0.fileName", "scsi0:1.present", "scsi0:1.fileName", "scsi0.present", "memsize"),
        *("ide0:0.present", "ide0:0.fileName", "ide0:0.deviceType", "sata0:0.fileName"),
        *("sata0:0.present", "ethernet0.present", "ethernet0.address", "ethernet0.pciSlotNumber"),
        *("displayName", "annotation", "guestOS", "firmware", "nvram", "uuid.bios", "vm.genid"),
        *("vm.genidX", "numvcpus", "cpuid.coresPerSocket", "rtc.diffFromUTC", "bios.hddOrder"),
        *(".encoding", "checkpoint.vmState", "ethernet0.vnet", "floppy0.present"),
    ]
)
VALUES = st.one_of(
    st.sampled_from(
        [
            *("TRUE", "FALSE", "", "/etc/passwd", "../secret.vmdk", "web.vmdk", "web-flat.vmdk"),
            *("C:\\a\\web.vmdk", "\\\\h\\s", "|00", "|0A|22", "nbd://h/e", "/dev/zero", "-1", "3"),
            *("9999999999999999999", "\u0663", "auto detect", "GBK", "cdrom-raw", "rdm", "/", "."),
        ]
    ),
    st.text(max_size=20),
    st.integers(-(1 << 70), 1 << 70).map(str),
)


@settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    entries=st.lists(st.tuples(KEYS, VALUES), max_size=12),
    junk=st.binary(max_size=30),
    vmsd=st.lists(st.tuples(st.sampled_from(["uid", "disk0.fileName", "disk0.node"]), VALUES)),
)
def test_any_file_is_a_vm_or_an_error_and_opens_nothing_of_the_host(
    tmp_path: Path, run: Run, entries, junk: bytes, vmsd
) -> None:
    folder = tmp_path / "vm"
    if not folder.exists():
        write_vmdk(folder, "web", CONTENT)
        write_vmdk(tmp_path, "secret", CONTENT)
    lines = {**disk("scsi0:0", "web.vmdk"), **dict(entries)}
    text = "".join(f'{key} = "{value}"\n' for key, value in lines.items())
    data = text.encode("utf-8", "replace")
    (folder / "web.vmx").write_bytes(data if len(junk) % 3 else data + junk)
    text = "".join(f'snapshot0.{key} = "{value}"\n' for key, value in vmsd)
    (folder / "web.vmsd").write_text(text, errors="replace")
    OPENED.clear()
    WATCHING.append({one.ident for one in threading.enumerate()} - {threading.get_ident()})
    try:
        for snapshot in (None, "snapshot 1"):
            read_or_refused(folder / "web.vmx", run, snapshot)
        read_remote_or_refused(folder / "web.vmx", run)
    finally:
        WATCHING.clear()
    allowed = (str(folder), "/proc", "/sys", "/dev/loop")  # who else uses the file is looked up
    assert str(folder / "web.vmx") in OPENED
    foreign = [name for name in OPENED if not name.startswith(allowed)]
    assert [name for name in foreign if not name.endswith((".py", ".pyc"))] == []  # imports


def read_remote_or_refused(path: Path, run: Run) -> None:
    """The same as if it were in a store of another host."""
    with LocalStore() as store:
        try:
            source = read_folder(RemoteFolder(store, PLACE, str(path)), None, run)
        except V2VError as exc:
            assert exc.id
            return
    prefix = f"ssh://esxi{path.parent}/"
    assert all(one.location.startswith(prefix) for one in source.disks)


def read_or_refused(path: Path, run: Run, snapshot: str | None) -> None:
    try:
        source = VmxInput(VmxOptions(snapshot=snapshot), [str(path)]).read_source(run)
    except V2VError as exc:
        assert exc.id
        return
    assert source.disks
    for one in source.disks:
        assert all(Path(file).is_relative_to(path.parent) for file in one.files)
