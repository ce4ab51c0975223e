"""The configuration of a VM, from the hardware model; the tests' server checks its form."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.contract.output_suite import GUEST
from tests.fakes.proxmox import ProxmoxServer, Storage, vms
from v2v.errors import TargetError
from v2v.hardware import target_hardware
from v2v.outputs._proxmox import names
from v2v.outputs._proxmox.cluster import bridge_of
from v2v.outputs._proxmox.config import Plan, vm_config, volumes
from v2v.types import (
    BlockBus,
    Cpu,
    DiskFormat,
    Firmware,
    GiB,
    Machine,
    NetModel,
    Nic,
    Removable,
    Source,
    SourceDisk,
)

DISK = SourceDisk("/none", DiskFormat.RAW, GiB)
NIC = Nic(mac="52:54:00:12:34:56", network="vmbr0")
SOURCE = Source(name="web", input="disk", disks=(DISK,), nics=(NIC,))
UUID = "11111111-2222-3333-4444-555555555555"


def config_of(source: Source = SOURCE, **more: Any) -> dict[str, Any]:
    guest = replace(GUEST, nics=source.nics or (), firmware=source.firmware or Firmware.BIOS)
    hardware = replace(target_hardware(source, guest), **more)
    plan = Plan(
        job_id="20260301-101500-web-ab12",
        cpu="x86-64-v2-AES",
        storages=tuple(disk.target_storage or "local" for disk in source.disks),
        images=tuple(f"local:import/v2v-{i}.qcow2" for i, _ in enumerate(source.disks)),
        bridges=tuple((nic.network, None) for nic in source.nics or ()),
    )
    return vm_config(hardware, plan)


@pytest.fixture
def server(tmp_path) -> ProxmoxServer:
    server = ProxmoxServer(tmp_path)
    server.storages["fast"] = Storage(tmp_path / "fast")
    for number in range(31):
        image = server.storages["local"].image(f"v2v-{number}.qcow2")
        image.parent.mkdir(parents=True, exist_ok=True)
        image.touch()
    return server


@pytest.fixture(autouse=True)
def form(server, monkeypatch) -> None:
    """Whatever a test makes is something that the server would take."""
    inner = vm_config

    def checked(hardware, plan) -> dict[str, Any]:
        config = inner(hardware, plan)
        words = {key: str(word) for key, word in config.items()}
        vms.check(server, "root@pam", words)
        return config

    monkeypatch.setitem(globals(), "vm_config", checked)


def test_a_plain_guest() -> None:
    config = config_of()
    del config["description"]
    assert config == {
        "name": "web",
        "ostype": "l26",
        "machine": "q35",
        "bios": "seabios",
        "memory": 2048,
        "sockets": 1,
        "cores": 1,
        "cpu": "x86-64-v2-AES",
        "agent": 1,
        "serial0": "socket",
        "localtime": 0,
        "scsihw": "virtio-scsi-single",
        "virtio0": "local:0,import-from=local:import/v2v-0.qcow2,discard=on,iothread=1",
        "boot": "order=virtio0",
        "net0": "virtio=52:54:00:12:34:56,bridge=vmbr0",
        "rng0": "source=/dev/urandom",
    }


def test_uefi_has_a_disk_for_its_variables() -> None:
    config = config_of(replace(SOURCE, firmware=Firmware.UEFI))
    assert config["bios"] == "ovmf"
    assert config["efidisk0"] == "local:1,efitype=4m,pre-enrolled-keys=0"
    assert "tpmstate0" not in config


def test_secure_boot_and_a_tpm() -> None:
    source = replace(SOURCE, firmware=Firmware.UEFI, secure_boot=True, tpm=True)
    config = config_of(source)
    assert config["efidisk0"].endswith("pre-enrolled-keys=1")
    assert config["tpmstate0"] == "local:1,version=v2.0"


@pytest.mark.parametrize(
    ("bus", "machine", "keys"),
    [
        (BlockBus.VIRTIO_BLK, Machine.Q35, ["virtio0", "virtio1"]),
        (BlockBus.VIRTIO_SCSI, Machine.Q35, ["scsi0", "scsi1"]),
        (BlockBus.SATA, Machine.Q35, ["sata0", "sata1"]),
        (BlockBus.IDE, Machine.Q35, ["sata0", "sata1"]),
        (BlockBus.IDE, Machine.I440FX, ["ide0", "ide1"]),
    ],
)
def test_disks_are_on_the_bus_that_the_guest_has_drivers_for(bus, machine, keys) -> None:
    source = replace(SOURCE, disks=(DISK, replace(DISK, target_storage="fast")))
    config = config_of(source, block_bus=bus, machine=machine, boot_disk=1)
    assert [config[key].partition(":")[0] for key in keys] == ["local", "fast"]
    assert config["boot"] == f"order={keys[1]};{keys[0]}"
    assert ("iothread" in config[keys[0]]) == bus.startswith("virtio")
    stored = {key: f"fast:100/vm-100-disk-{key[-1]}.qcow2,size=1G" for key in keys}
    hardware = replace(target_hardware(source, GUEST), block_bus=bus, machine=machine)
    assert volumes(stored, hardware) == [f"fast:100/vm-100-disk-{i}.qcow2" for i in range(2)]


@pytest.mark.parametrize(("bus", "most"), [(BlockBus.VIRTIO_BLK, 16), (BlockBus.VIRTIO_SCSI, 31)])
def test_as_many_disks_as_the_bus_takes(bus: BlockBus, most: int) -> None:
    config = config_of(replace(SOURCE, disks=(DISK,) * most), block_bus=bus)
    assert sum("import-from" in str(word) for word in config.values()) == most


def test_serials_are_percent_encoded_or_left_out() -> None:
    disks = (replace(DISK, serial="AB 1+2"), replace(DISK, serial="long" * 8))
    config = config_of(replace(SOURCE, disks=disks), block_bus=BlockBus.VIRTIO_SCSI)
    assert config["scsi0"].endswith(",serial=AB%201%2B2")
    assert "serial" not in config["scsi1"] or len(config["scsi1"].partition("serial=")[2]) <= 60


def test_a_serial_that_is_an_attack_is_left_out() -> None:
    config = config_of(replace(SOURCE, disks=(replace(DISK, serial="x,import-from=/etc"),)))
    assert "/etc" not in config["virtio0"]


def test_cards_keep_their_addresses_models_and_cables() -> None:
    nics = (NIC, replace(NIC, mac="52:54:00:AA:bb:cc", connected=False))
    config = config_of(replace(SOURCE, nics=nics), net_model=NetModel.E1000E)
    assert config["net0"] == "e1000e=52:54:00:12:34:56,bridge=vmbr0"
    assert config["net1"] == "e1000e=52:54:00:AA:BB:CC,bridge=vmbr0,link_down=1"


def test_a_card_without_an_address_gets_one_there() -> None:
    assert (
        config_of(replace(SOURCE, nics=(replace(NIC, mac=None),)))["net0"] == "virtio,bridge=vmbr0"
    )


def test_the_layout_of_processors_is_kept() -> None:
    config = config_of(replace(SOURCE, vcpus=16, cpu=Cpu(sockets=2, cores=4, threads=2)))
    assert (config["sockets"], config["cores"]) == (2, 8)


def test_memory_is_rounded_up_to_whole_mebibytes() -> None:
    assert config_of(replace(SOURCE, memory=GiB + 1))["memory"] == 1025


def test_what_the_guest_has_no_driver_for() -> None:
    config = config_of(balloon=False, rng=False, rtc_utc=False)
    assert config["balloon"] == 0
    assert config["localtime"] == 1
    assert "rng0" not in config


def test_identity_is_kept() -> None:
    config = config_of(replace(SOURCE, uuid=UUID.upper(), genid=UUID))
    assert config["smbios1"] == f"uuid={UUID}"
    assert config["vmgenid"] == UUID
    hostile = config_of(replace(SOURCE, uuid="x,manufacturer=y", genid="1"))
    assert not {"smbios1", "vmgenid"} & set(hostile)


def test_drives_and_sound() -> None:
    source = replace(SOURCE, removables=(Removable("cdrom"), Removable("floppy")), sound="ich9")
    config = config_of(source)
    assert config["sata0"] == "none,media=cdrom"
    assert config["audio0"] == "device=ich9-intel-hda,driver=none"
    old = config_of(source, machine=Machine.I440FX, block_bus=BlockBus.IDE)
    assert old["machine"] == "pc"
    assert old["ide1"] == "none,media=cdrom"
    assert "audio0" not in config_of(replace(SOURCE, sound="sb16"))


@pytest.mark.parametrize(
    ("osinfo", "windows", "expected"),
    [
        ("http://microsoft.com/win/2k22", True, "win11"),
        ("http://microsoft.com/win/2k19", True, "win10"),
        ("http://microsoft.com/win/2k12r2", True, "win8"),
        ("http://microsoft.com/win/7", True, "win7"),
        ("http://microsoft.com/win/99", True, "win11"),
        (None, True, "win10"),
        ("http://debian.org/debian/12", False, "l26"),
    ],
)
def test_types_of_systems(osinfo: str | None, windows: bool, expected: str) -> None:
    assert config_of(osinfo=osinfo, windows=windows)["ostype"] == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("web", "web"),
        ("Guest 1/2", "Guest-1-2"),
        ("db_01.example.com", "db-01.example.com"),
        ("--force", "force"),
        ("..", "vm"),
        ("\u65e5\u672c", "vm"),
        ("a\nlock: backup", "a-lock-backup"),
        ("x" * 80, "x" * 63),
        ("x" * 62 + "-y", "x" * 62),
    ],
)
def test_names_are_names_of_hosts(name: str, expected: str) -> None:
    assert names.vm_name(name) == expected
    assert config_of(replace(SOURCE, name=name))["name"] == expected


def test_a_vm_is_known_by_the_last_line_of_its_description() -> None:
    job = "20260301-101500-web-ab12"
    written = config_of(replace(SOURCE, description="mine\nv2v job other"))["description"]
    assert written.startswith("mine\nv2v job other\n\ngenerated by v2v ")
    assert names.is_marked(written + "\n", job)
    assert not names.is_marked(written, "other")
    assert not names.is_marked(written + "\nnote", job)
    long = config_of(replace(SOURCE, description="\u00e4\n" * 9000))["description"]
    assert len(long) < 8192 and names.is_marked(long, job)


def test_names_of_uploads_are_what_the_server_takes() -> None:
    assert names.file_name("20260301-a.b", 1, DiskFormat.QCOW2) == "v2v-20260301-a.b-1.qcow2"
    assert names.file_name("a b/../c", 0, DiskFormat.RAW) == "v2v-a_b_.._c-0.raw"


def test_vlans_and_bridges() -> None:
    bridges = dict.fromkeys(["vmbr0", "vmbr1.5", "vnet.1"])
    assert bridge_of(replace(NIC, network="vmbr0"), bridges) == ("vmbr0", None)
    assert bridge_of(replace(NIC, network="vmbr0.42"), bridges) == ("vmbr0", 42)
    assert bridge_of(replace(NIC, network="vmbr1.5"), bridges) == ("vmbr1.5", None)
    for wrong in ("vmbr9", "vmbr0.0", "vmbr0.5000", "vmbr0.x", "VM Network", ""):
        with pytest.raises(TargetError) as error:
            bridge_of(replace(NIC, network=wrong), bridges)
        assert error.value.id == "target-network"
        assert "vmbr0" in (error.value.hint or "")
