"""QEMU command lines: the emulator itself takes them, and tells what it made of them."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from tests.machines import machine
from v2v import qemu, uefi
from v2v.errors import HostError, TargetError
from v2v.hardware import SOUND_CARDS, Hardware, Topology, cdrom_ports
from v2v.types import BlockBus, DiskFormat, Firmware, Machine, MiB, NetModel, Nic

HARDWARE = machine(
    name="a,b",
    memory=64 * MiB,
    disk_count=2,
    boot_disk=1,
    nics=(Nic(mac="52:54:00:00:00:01"), Nic(mac="52:54:00:00:00:02")),
    genid="12345678-1234-1234-1234-123456789abc",
)


@pytest.fixture
def disks(tmp_path: Path) -> list[tuple[str, DiskFormat]]:
    names = [tmp_path / "with,comma", tmp_path / "second"]
    for name in names:
        name.write_bytes(bytes(MiB))
    return [(str(name), DiskFormat.RAW) for name in names]


def ask(argv: list[str], *commands: str) -> list[object]:
    """What a paused emulator answers to QMP commands."""
    words = "".join(json.dumps({"execute": c}) for c in ("qmp_capabilities", *commands, "quit"))
    done = subprocess.run(
        [*argv, "-S", "-display", "none", "-qmp", "stdio"],
        input=words,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    return [a["return"] for a in answers if "return" in a][1:-1]


def argv(hardware: Hardware, disks: list[tuple[str, DiskFormat]]) -> list[str]:
    netdevs = [f"hubport,id={qemu.netdev_id(i)},hubid=0" for i in range(len(hardware.nics))]
    return [
        qemu.emulator(hardware.arch),
        *qemu.accelerator_arguments("tcg"),
        *qemu.device_arguments(hardware, disks, drive_options=["snapshot=on"]),
        *("-chardev", f"null,id={qemu.SERIAL}"),
        *(word for netdev in netdevs for word in ("-netdev", netdev)),
    ]


@pytest.mark.parametrize("machine", [Machine.Q35, Machine.I440FX])
@pytest.mark.parametrize("bus", list(BlockBus))
def test_emulator_takes_every_bus_on_every_machine(need_tool, disks, machine, bus):
    need_tool("qemu-system-x86_64")
    hardware = replace(HARDWARE, machine=machine, block_bus=bus)
    (blocks,) = ask(argv(hardware, disks), "query-block")
    assert isinstance(blocks, list)
    assert [block["device"] for block in blocks if block.get("inserted")] == ["disk0", "disk1"]


@pytest.mark.parametrize("model", list(NetModel))
def test_emulator_takes_every_nic_model(need_tool, disks, model):
    need_tool("qemu-system-x86_64")
    assert ask(argv(replace(HARDWARE, net_model=model), disks), "query-status")


@pytest.mark.parametrize("card", SOUND_CARDS)
@pytest.mark.parametrize("machine", [Machine.Q35, Machine.I440FX])
def test_emulator_takes_every_sound_card(need_tool, disks, machine, card):
    need_tool("qemu-system-x86_64")
    hardware = replace(HARDWARE, machine=machine, sound=card, nics=())
    assert ask(argv(hardware, disks), "query-status")
    assert "-audiodev" in argv(hardware, disks)


@pytest.mark.parametrize("card", [None, "hdaudio", "ich6,addr=1"])
def test_a_sound_card_that_is_not_known_is_left_out(card):
    words = qemu.device_arguments(replace(HARDWARE, disk_count=0, sound=card), [])
    assert "-audiodev" not in words


@pytest.mark.parametrize(
    ("machine", "bus", "drives"),
    [
        (Machine.Q35, BlockBus.VIRTIO_BLK, 6),
        (Machine.Q35, BlockBus.SATA, 4),
        (Machine.I440FX, BlockBus.IDE, 2),
        (Machine.I440FX, BlockBus.SATA, 4),
        (Machine.VIRT, BlockBus.VIRTIO_BLK, 0),
    ],
)
def test_cdrom_drives_take_the_ports_that_are_left(need_tool, disks, machine, bus, drives):
    need_tool("qemu-system-x86_64")
    hardware = replace(HARDWARE, machine=machine, block_bus=bus, cdroms=9)
    assert len(cdrom_ports(hardware)) == drives
    if machine is Machine.VIRT:
        return
    (blocks,) = ask(argv(hardware, disks), "query-block")
    assert isinstance(blocks, list)
    empty = [block["device"] for block in blocks if not block.get("inserted")]
    assert empty == [f"cdrom{n}" for n in range(drives)]


def test_emulator_takes_the_layout_of_processors(need_tool, disks):
    need_tool("qemu-system-x86_64")
    hardware = replace(HARDWARE, vcpus=8, topology=Topology(2, 2, 2))
    (cpus,) = ask(argv(hardware, disks), "query-hotpluggable-cpus")
    assert isinstance(cpus, list)
    places = {tuple(cpu["props"][f"{part}-id"] for part in PARTS) for cpu in cpus}
    assert places == {(s, c, t) for s in range(2) for c in range(2) for t in range(2)}


PARTS = ("socket", "core", "thread")


@pytest.mark.parametrize("bus", list(BlockBus))
def test_emulator_takes_serials(need_tool, disks, bus):
    need_tool("qemu-system-x86_64")
    serial = "x" * (36 if bus is BlockBus.VIRTIO_SCSI else 20)
    hardware = replace(HARDWARE, block_bus=bus, serials=(serial, None))
    words = argv(hardware, disks)
    assert sum(f",serial={serial}" in word for word in words) == 1
    assert ask(words, "query-status")


def test_what_has_no_form_is_no_option_of_the_emulator(need_tool, disks):
    """A stranger's address or id cannot bring further options along."""
    need_tool("qemu-system-x86_64")
    evil = "52:54:00:00:00:01,romfile=/etc/passwd"
    hardware = replace(HARDWARE, genid=f"{HARDWARE.genid},addr=9", nics=(Nic(mac=evil),))
    words = argv(hardware, disks)
    assert not [word for word in words if "passwd" in word or "vmgenid" in word]
    assert ask(words, "query-status")


def test_nics_have_their_mac(need_tool, disks):
    need_tool("qemu-system-x86_64")
    (filters,) = ask(argv(HARDWARE, disks), "query-rx-filter")
    assert isinstance(filters, list)
    assert {f["main-mac"] for f in filters} == {"52:54:00:00:00:01", "52:54:00:00:00:02"}


def test_as_many_virtio_disks_as_are_allowed_fit(need_tool, disks):
    need_tool("qemu-system-x86_64")
    count = qemu.BUS_DISKS[BlockBus.VIRTIO_BLK]
    many = replace(HARDWARE, disk_count=count)
    assert ask(argv(many, [disks[0]] * count), "query-status")


def test_boot_order_is_on_the_devices(disks):
    devices = [word for word in argv(HARDWARE, disks) if word.startswith("virtio-blk-pci")]
    assert devices == [
        "virtio-blk-pci,drive=disk0,bootindex=2",
        "virtio-blk-pci,drive=disk1,bootindex=1",
    ]


def test_more_disks_than_the_bus_takes_are_refused():
    hardware = replace(HARDWARE, block_bus=BlockBus.IDE, disk_count=5)
    with pytest.raises(TargetError) as error:
        qemu.device_arguments(hardware, [("/x", DiskFormat.RAW)] * 5)
    assert error.value.id == "too-many-disks"


def test_uefi_firmware_is_found_and_taken(need_tool, disks, tmp_path):
    need_tool("qemu-system-x86_64")
    firmware = uefi.uefi_firmware("x86_64")
    variables = tmp_path / "vars,1.fd"
    variables.write_bytes(Path(firmware.variables).read_bytes())
    for secure in (False, True):
        hardware = replace(HARDWARE, firmware=Firmware.UEFI, secure_boot=secure)
        words = uefi.firmware_arguments(hardware, firmware, str(variables))
        assert ask([*argv(hardware, disks), *words], "query-status")


def test_missing_firmware_names_its_package(monkeypatch):
    monkeypatch.setattr(uefi, "UEFI_FILES", {("x86_64", False): (("/none/code", "/none/vars"),)})
    with pytest.raises(HostError) as error:
        uefi.uefi_firmware("i686")
    assert "ovmf" in str(error.value.hint)


def test_version_of_the_emulator(need_tool):
    need_tool("qemu-system-x86_64")
    assert qemu.version() >= (4, 0)
