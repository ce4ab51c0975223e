"""VirtualMachines and DataVolumes that the API's schema accepts, whatever the source said."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes.kubernetes.schema import problems
from tests.machines import machine
from tests.outputs.test_libvirt_xml import CONVERTED, HOSTILE, sources
from v2v.errors import TargetError
from v2v.hardware import Hardware, Topology, target_hardware
from v2v.network import target_nics
from v2v.outputs._kubevirt.devices import check_guest
from v2v.outputs._kubevirt.manifest import (
    Wishes,
    data_volume,
    differences,
    to_yaml,
    virtual_machine,
)
from v2v.outputs._kubevirt.names import LABEL, LABEL_VALUE, disk_name, job_label, kube_name
from v2v.outputs._kubevirt.networks import attach
from v2v.types import BlockBus, Firmware, GiB, KiB, Machine, MiB, NetModel, Nic

UEFI = Firmware.UEFI


def written(hardware: Hardware, wishes: Wishes = Wishes()) -> dict[str, Any]:  # noqa: B008
    """The VM as it is read back from YAML."""
    vm = virtual_machine(hardware, wishes)
    assert problems(vm) == ""
    (loaded,) = yaml.safe_load_all(to_yaml(["a comment"], [vm]))
    assert loaded == vm
    return loaded


def domain(hardware: Hardware, wishes: Wishes = Wishes()) -> Any:  # noqa: B008
    return written(hardware, wishes)["spec"]["template"]["spec"]["domain"]


@settings(max_examples=60, deadline=None)
@given(
    sources(),
    st.sampled_from(BlockBus),
    st.sampled_from(Machine),
    st.sampled_from(Firmware),
    st.sampled_from(["x86_64", "i686", "aarch64"]),
)
def test_the_api_accepts_whatever_the_source_says(source, bus, kind, firmware, arch) -> None:
    caps = replace(CONVERTED.caps, block_bus=bus, machine=kind, arch=arch)
    cards = target_nics(source, ())[:1]  # several may have no networks, which is refused
    guest = replace(CONVERTED, caps=caps, firmware=firmware, nics=cards)
    try:
        check_guest(guest)
    except TargetError:
        return
    written(target_hardware(source, guest))
    list(differences(target_hardware(source, guest), Wishes()))


@pytest.mark.parametrize(
    ("bus", "expected"),
    [
        (BlockBus.VIRTIO_BLK, "virtio"),
        (BlockBus.VIRTIO_SCSI, "scsi"),
        (BlockBus.SATA, "sata"),
        (BlockBus.IDE, "sata"),
    ],
)
def test_every_bus_has_its_disks(bus, expected) -> None:
    hardware = machine(block_bus=bus, disk_count=3, boot_disk=1)
    disks = domain(hardware)["devices"]["disks"]
    assert [one["disk"]["bus"] for one in disks] == [expected] * 3
    assert [one["bootOrder"] for one in disks] == [2, 1, 3]
    volumes = written(hardware)["spec"]["template"]["spec"]["volumes"]
    assert [one["name"] for one in volumes] == [one["name"] for one in disks]
    assert volumes[2]["dataVolume"]["name"] == "demo-sdc"
    told = [one.id for one in differences(hardware, Wishes())]
    assert told == (["kubevirt-device"] if bus is BlockBus.IDE else [])


def test_the_sixth_of_many_disks_is_found_by_its_name() -> None:
    volumes = written(machine(disk_count=30))["spec"]["template"]["spec"]["volumes"]
    assert volumes[26] == {"name": "sdaa", "dataVolume": {"name": "demo-sdaa"}}


@pytest.mark.parametrize(
    ("changes", "bootloader", "smm"),
    [
        ({}, {"bios": {}}, False),
        ({"firmware": UEFI}, {"efi": {"secureBoot": False}}, False),
        ({"firmware": UEFI, "secure_boot": True}, {"efi": {"secureBoot": True}}, True),
        (
            {"firmware": UEFI, "tpm": True},
            {"efi": {"secureBoot": False, "persistent": True}},
            False,
        ),
        (
            {"firmware": UEFI, "secure_boot": True, "machine": Machine.VIRT, "arch": "aarch64"},
            {"efi": {"secureBoot": False}},
            False,
        ),
    ],
)
def test_firmware(changes, bootloader, smm) -> None:
    made = domain(machine(**changes))
    assert made["firmware"]["bootloader"] == bootloader
    assert ("smm" in made["features"]) == smm


def test_what_it_says_of_the_machine() -> None:
    uuid = "564d7a2e-0000-4111-8222-933344445555"
    hardware = machine(vcpus=8, memory=3 * GiB, uuid=uuid.upper(), tpm=True, sound="ich6")
    made = domain(hardware)
    assert made["machine"] == {"type": "q35"}
    assert made["memory"] == {"guest": "3072Mi"}
    assert made["cpu"] == {"sockets": 1, "cores": 8, "threads": 1, "model": "host-model"}
    assert made["firmware"]["uuid"] == uuid
    assert made["clock"] == {"utc": {}}
    devices = made["devices"]
    assert devices["rng"] == {} and devices["autoattachMemBalloon"] is True
    assert devices["tpm"] == {"persistent": True}
    assert devices["sound"]["model"] == "ich9"
    assert devices["inputs"] == [{"name": "tablet", "type": "tablet", "bus": "usb"}]
    assert "useVirtioTransitional" not in devices
    laid_out = domain(machine(vcpus=8, topology=Topology(2, 2, 2)))["cpu"]
    assert (laid_out["sockets"], laid_out["cores"], laid_out["threads"]) == (2, 2, 2)
    assert domain(machine(memory=MiB + KiB + 1))["memory"] == {"guest": "1026Ki"}


def test_what_the_guest_cannot_drive_is_left_out() -> None:
    devices = domain(machine(rng=False, balloon=False, virtio_1_0=False, nics=()))["devices"]
    assert "rng" not in devices and "tpm" not in devices
    assert devices["autoattachMemBalloon"] is False
    assert devices["useVirtioTransitional"] is True
    assert devices["autoattachPodInterface"] is False


def test_an_arm_guest_is_no_pc() -> None:
    hardware = machine(arch="aarch64", machine=Machine.VIRT, firmware=UEFI)
    vm = written(hardware)["spec"]["template"]["spec"]
    assert vm["architecture"] == "arm64"
    assert vm["domain"]["machine"] == {"type": "virt"}
    assert vm["domain"]["cpu"]["model"] == "host-passthrough"


@pytest.mark.parametrize(
    ("bus", "firmware"),
    [(BlockBus.VIRTIO_BLK, Firmware.BIOS), (BlockBus.SATA, UEFI), (BlockBus.IDE, UEFI)],
)
def test_arm_guests_that_kubevirt_does_not_run(bus, firmware) -> None:
    caps = replace(CONVERTED.caps, block_bus=bus, machine=Machine.VIRT, arch="aarch64")
    with pytest.raises(TargetError) as error:
        check_guest(replace(CONVERTED, caps=caps, firmware=firmware))
    assert error.value.id == "kubevirt-arm" and error.value.hint
    check_guest(replace(CONVERTED, caps=replace(caps, arch="x86_64"), firmware=firmware))


def test_what_kubevirt_refuses_of_arm_guests_is_left_out_and_told() -> None:
    hardware = machine(
        arch="aarch64", machine=Machine.VIRT, firmware=UEFI, sound="ich9", secure_boot=True
    )
    assert "sound" not in domain(hardware)["devices"]
    assert domain(hardware)["firmware"]["bootloader"]["efi"]["secureBoot"] is False
    told = [one.text for one in differences(hardware, Wishes())]
    assert any("secure boot" in text for text in told)


def test_a_windows_guest_keeps_its_time() -> None:
    hardware = machine(windows=True, rtc_utc=False)
    clock = domain(hardware)["clock"]
    assert clock["utc"] == {} and clock["timer"]["hpet"] == {"present": False}
    assert [one.id for one in differences(hardware, Wishes())] == ["kubevirt-clock"]
    berlin = Wishes(timezone="Europe/Berlin")
    assert domain(hardware, berlin)["clock"]["timezone"] == "Europe/Berlin"
    assert list(differences(hardware, berlin)) == []
    assert domain(machine(), berlin)["clock"] == {"utc": {}}, "a guest in UTC has no zone"


def test_it_runs_only_when_asked() -> None:
    assert written(machine())["spec"]["runStrategy"] == "Halted"
    assert written(machine(), Wishes(start=True))["spec"]["runStrategy"] == "Always"


@pytest.mark.parametrize("model", NetModel)
def test_cards_are_where_they_were_mapped(model) -> None:
    cards = (
        Nic(mac="52:54:00:11:22:33", network="pod"),
        Nic(mac="52:54:00:11:22:44", network="infra/vlan-10", connected=False),
        Nic(network="br-lan"),
    )
    vm = written(machine(nics=cards, net_model=model))["spec"]["template"]["spec"]
    assert vm["networks"] == [
        {"name": "nic0", "pod": {}},
        {"name": "nic1", "multus": {"networkName": "infra/vlan-10"}},
        {"name": "nic2", "multus": {"networkName": "br-lan"}},
    ]
    first, second, third = vm["domain"]["devices"]["interfaces"]
    assert first["masquerade"] == {} and first["macAddress"] == "52:54:00:11:22:33"
    assert second["bridge"] == {} and second["state"] == "down"
    assert "macAddress" not in third and third["model"] == str(model)


def test_a_network_of_which_no_cluster_knows_is_told() -> None:
    hardware = machine(nics=(Nic(network="VM Network"),))
    (warning,) = differences(hardware, Wishes())
    assert warning.id == "kubevirt-network" and "VM Network" in warning.text


def test_two_cards_on_the_pod_network_are_refused() -> None:
    with pytest.raises(TargetError, match="VM Network, pod") as error:
        attach([Nic(network="VM Network"), Nic(network="infra/a"), Nic(network="pod")])
    assert error.value.id == "target-network"


def test_serials_that_kubevirt_refuses_are_left_out() -> None:
    disks = domain(machine(disk_count=2, serials=("WD 1", "A-1")))["devices"]["disks"]
    assert "serial" not in disks[0] and disks[1]["serial"] == "A-1"


def test_names_that_others_chose_are_written_with_care() -> None:
    name = f"web: {HOSTILE}"
    metadata = written(machine(name=name, description=HOSTILE))["metadata"]
    assert LABEL.fullmatch(metadata["name"])
    assert (
        "\x1b" not in metadata["annotations"]["v2v-name"] + metadata["annotations"]["description"]
    )
    assert b"\n--- x" not in to_yaml(["x\n--- x"], [])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("web", "web"),
        ("Web Server_01 (old)", "web-server-01-old"),
        ("Größe", "groe"),
        ("日本", "vm"),
        ("--x--", "x"),
        ("a" * 57 + "--b", "a" * 57),
        ("\ud800", "vm"),
    ],
)
def test_names_of_kubernetes(name: str, expected: str) -> None:
    assert kube_name(name) == expected
    assert LABEL.fullmatch(disk_name(expected, 255))


def test_job_ids_become_labels() -> None:
    assert job_label("20260101-web-a1b2") == "20260101-web-a1b2"
    for odd in ("x" * 64, "-x", "a b", "\ud800"):
        assert LABEL_VALUE.fullmatch(job_label(odd))
    assert job_label("-x") != job_label("-y")


@pytest.mark.parametrize(
    ("size", "expected"), [(1, "1Mi"), (MiB, "1Mi"), (MiB + 1, "2Mi"), (GiB, "1024Mi")]
)
def test_a_volume_holds_the_whole_image(size: int, expected: str) -> None:
    wishes = Wishes(namespace="vms", labels={"v2v-job": "x"}, preallocated=True)
    volume = data_volume("web-sda", size, wishes, storage_class="fast", file="web-sda")
    assert problems(volume) == ""
    assert volume["spec"]["storage"]["resources"]["requests"]["storage"] == expected
    assert volume["spec"]["storage"]["storageClassName"] == "fast"
    assert volume["spec"]["preallocation"] is True
    plain = data_volume("web-sda", size, Wishes())
    assert problems(plain) == "" and "storageClassName" not in plain["spec"]["storage"]


def test_the_schema_sees_what_is_misplaced() -> None:
    """A fact about other tools' files: fields under `resources` are dropped by the API."""
    vm = virtual_machine(machine(), Wishes())
    inner = vm["spec"]["template"]["spec"]["domain"]
    inner["resources"] = {"clock": inner.pop("clock")}
    assert "resources" in problems(vm)


@pytest.mark.parametrize(
    ("path", "wrong"),
    [
        (("networks",), []),
        (("volumes", 0, "name"), "vda"),
        (("domain", "devices", "disks", 0, "bootOrder"), 2),
        (("domain", "devices", "disks", 0, "disk", "bus"), "ide"),
        (("domain", "devices", "disks", 0, "dedicatedIOThreads"), True),
        (("domain", "devices", "interfaces", 0, "bridge"), {}),
        (("domain", "devices", "interfaces", 0, "macAddress"), "525400112233"),
        (("domain", "devices", "rng"), None),
        (("domain", "features", "smm"), {"enabled": False}),
        (("domain", "firmware", "bootloader", "bios"), {}),
        (("domain", "machine", "type"), "virt"),
        (("domain", "memory", "guest"), "2 GiB"),
        (("domain", "cpu", "sockets"), 0),
        (("domain", "clock", "timezone"), "Europe/Berlin"),
        (("architecture",), "arm64"),
    ],
)
def test_the_schema_sees_what_the_server_refuses(path, wrong) -> None:
    vm = virtual_machine(machine(disk_count=2, firmware=UEFI, secure_boot=True), Wishes())
    assert problems(vm) == ""
    spec = vm["spec"]["template"]["spec"]
    for key in path[:-1]:
        spec = spec[key]
    spec[path[-1]] = wrong
    assert problems(vm)
