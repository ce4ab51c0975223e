"""What OpenStack is told of a guest."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.contract.output_suite import GUEST
from v2v.hardware import target_hardware
from v2v.outputs._openstack.properties import gibibytes, image_properties, minimum_ram, named
from v2v.types import (
    BlockBus,
    ConvertedGuest,
    Cpu,
    Firmware,
    GiB,
    GuestOS,
    Machine,
    MiB,
    NetModel,
    Source,
)

SOURCE = Source(name="web", input="disk", disks=(), memory=3 * GiB, vcpus=4)
WINDOWS = GuestOS("windows", "windows", "10.0", "Windows Server 2022", "x86_64")


def properties(source: Source = SOURCE, guest: ConvertedGuest = GUEST) -> dict[str, str]:
    return image_properties(target_hardware(source, guest), guest.os)


def test_a_linux_guest_with_bios() -> None:
    assert properties() == {
        "architecture": "x86_64",
        "hypervisor_type": "kvm",
        "vm_mode": "hvm",
        "hw_disk_bus": "virtio",
        "hw_vif_model": "virtio",
        "hw_video_model": "vga",
        "hw_machine_type": "q35",
        "hw_firmware_type": "bios",
        "hw_qemu_guest_agent": "yes",
        "hw_rng_model": "virtio",
        "os_type": "linux",
        "os_distro": "debian",
        "os_version": "12",
    }


def test_uefi_with_secure_boot_and_a_tpm() -> None:
    source = replace(SOURCE, secure_boot=True, tpm=True)
    found = properties(source, replace(GUEST, firmware=Firmware.UEFI, os=WINDOWS))
    assert found["hw_firmware_type"] == "uefi"
    assert found["os_secure_boot"] == "required"
    assert (found["hw_tpm_version"], found["hw_tpm_model"]) == ("2.0", "tpm-crb")
    assert (found["os_type"], found["os_distro"]) == ("windows", "windows")


def test_bios_has_no_secure_boot() -> None:
    assert "os_secure_boot" not in properties(replace(SOURCE, secure_boot=True))


def test_virtio_scsi_needs_its_controller() -> None:
    caps = replace(GUEST.caps, block_bus=BlockBus.VIRTIO_SCSI)
    found = properties(guest=replace(GUEST, caps=caps))
    assert (found["hw_disk_bus"], found["hw_scsi_model"]) == ("scsi", "virtio-scsi")


def test_a_guest_without_drivers_of_virtio() -> None:
    caps = replace(
        GUEST.caps,
        block_bus=BlockBus.IDE,
        net_model=NetModel.RTL8139,
        machine=Machine.I440FX,
        rng=False,
    )
    found = properties(guest=replace(GUEST, caps=caps))
    assert (found["hw_disk_bus"], found["hw_vif_model"]) == ("ide", "rtl8139")
    assert found["hw_machine_type"] == "pc"
    assert "hw_rng_model" not in found


def test_only_the_old_machine_has_ide() -> None:
    caps = replace(GUEST.caps, block_bus=BlockBus.IDE, machine=Machine.Q35)
    assert properties(guest=replace(GUEST, caps=caps))["hw_disk_bus"] == "sata"


def test_old_drivers_of_virtio_find_no_devices_on_q35() -> None:
    """Nova has no transitional ones."""
    caps = replace(GUEST.caps, block_bus=BlockBus.SATA, virtio_1_0=False)
    found = properties(guest=replace(GUEST, caps=caps))
    assert (found["hw_machine_type"], found["hw_disk_bus"]) == ("pc", "sata")


def test_arm() -> None:
    caps = replace(GUEST.caps, machine=Machine.VIRT, arch="aarch64")
    guest = replace(GUEST, caps=caps, firmware=Firmware.UEFI)
    found = properties(replace(SOURCE, tpm=True), guest)
    assert (found["architecture"], found["hw_machine_type"]) == ("aarch64", "virt")
    assert (found["hw_video_model"], found["hw_tpm_model"]) == ("virtio", "tpm-tis")


def test_the_layout_of_processors() -> None:
    found = properties(replace(SOURCE, cpu=Cpu(sockets=1, cores=2, threads=2)))
    layout = [found[f"hw_cpu_{kind}"] for kind in ("sockets", "cores", "threads")]
    assert layout == ["1", "2", "2"]


@pytest.mark.parametrize(("distro", "known"), [("sles", "sled"), ("opensuse-leap", "opensuse")])
def test_distributions_have_names_of_their_own(distro: str, known: str) -> None:
    guest = replace(GUEST, os=replace(GUEST.os, distro=distro))
    assert properties(guest=guest)["os_distro"] == known


def test_a_hostile_guest_fills_no_property_with_more_than_fits() -> None:
    guest = replace(GUEST, os=replace(GUEST.os, distro="x" * 5000, version="\x1b[2J"))
    found = properties(guest=guest)
    assert len(found["os_distro"]) == 255
    assert all(word.isprintable() for word in found.values())


def test_sizes_and_memory_are_rounded_up() -> None:
    assert [gibibytes(size) for size in (0, 1, GiB, GiB + 512)] == [1, 1, 1, 2]
    assert minimum_ram(target_hardware(replace(SOURCE, memory=GiB + 1), GUEST)) == GiB // MiB + 1


def test_names_are_not_longer_than_names_may_be() -> None:
    assert named("n" * 400, "-sda") == "n" * 251 + "-sda"
    assert named("\n", "-sda") == "vm-sda"
