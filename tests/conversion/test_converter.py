"""The converters from outside: a guest in, a converted guest out."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest

from conversion import GuestfsConverter, NoConversion, converter_for
from conversion.disk_head import ESP
from conversion.handle import open_appliance
from tests.conversion.disks import NIC, blank, serve, source
from v2v.events import StepFinished, StepStarted
from v2v.job import ConversionOptions
from v2v.types import BlockBus, Firmware, Machine, MiB, NetModel, Nic

OPTIONS = ConversionOptions()


def test_the_options_choose_the_converter():
    assert isinstance(converter_for(OPTIONS), GuestfsConverter)
    assert isinstance(converter_for(replace(OPTIONS, convert=False)), NoConversion)


def test_importing_the_package_loads_no_binding():
    code = "import conversion, sys; print('guestfs' in sys.modules, 'yaml' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.split() == ["False", "False"]


# Without conversion -------------------------------------------------------------------------------


def test_firmware_is_found_without_an_appliance(run, tmp_path, need_tool):
    need_tool("qemu-nbd")
    image = blank(tmp_path / "disk", 64 * MiB)
    script = f"label: gpt\nsize=8M, type={ESP}\nsize=8M\n"
    subprocess.run([need_tool("sfdisk"), "-q", image], input=script, text=True, check=True)
    with serve([image], run) as endpoints:
        guest = NoConversion().convert(source([image]), endpoints, OPTIONS, run)
        inspection = NoConversion().inspect(source([image]), endpoints, OPTIONS, run)
    assert guest.firmware is inspection.firmware is Firmware.UEFI
    assert guest.os.type == "unknown"
    assert guest.nics == (NIC,)
    assert not inspection.convertible


def test_a_firmware_that_the_disks_speak_against_is_a_finding(run, tmp_path, need_tool):
    need_tool("qemu-nbd")
    image = blank(tmp_path / "disk", 64 * MiB)
    script = f"label: gpt\nsize=8M, type={ESP}\nsize=8M\n"
    subprocess.run([need_tool("sfdisk"), "-q", image], input=script, text=True, check=True)
    said = replace(source([image]), firmware=Firmware.BIOS)
    with serve([image], run) as endpoints:
        guest = NoConversion().convert(said, endpoints, OPTIONS, run)
    assert guest.firmware is Firmware.BIOS
    assert [finding.id for finding in guest.findings] == ["not-converted", "firmware-doubtful"]


@pytest.mark.parametrize(
    ("rtc_utc", "osinfo", "expected"),
    [
        (None, None, True),
        (None, "http://debian.org/debian/12", True),
        (None, "http://microsoft.com/win/10", False),
        (None, "windows9_64Guest", False),
        (None, "winXPProGuest", False),
        (None, "darwin19_64Guest", True),
        (True, "windows9_64Guest", True),
        (False, "debian12_64Guest", False),
    ],
)
def test_the_clock_of_an_unconverted_guest_is_the_sources(
    run, tmp_path, need_tool, rtc_utc, osinfo, expected
):
    need_tool("qemu-nbd")
    image = blank(tmp_path / "disk", MiB)
    said = replace(source([image]), rtc_utc=rtc_utc, osinfo=osinfo)
    with serve([image], run) as endpoints:
        guest = NoConversion().convert(said, endpoints, OPTIONS, run)
    assert guest.caps.rtc_utc is expected


@pytest.mark.parametrize(
    ("controller", "model", "bus", "machine", "card"),
    [
        ("scsi", "vmxnet3", BlockBus.SATA, Machine.Q35, NetModel.E1000E),
        ("ide", "e1000", BlockBus.IDE, Machine.I440FX, NetModel.E1000),
        (None, None, BlockBus.SATA, Machine.Q35, NetModel.E1000E),
        ("virtio", "virtio", BlockBus.VIRTIO_BLK, Machine.Q35, NetModel.VIRTIO),
    ],
)
def test_an_unconverted_guest_gets_what_it_had_or_what_all_know(
    run, tmp_path, need_tool, controller, model, bus, machine, card
):
    need_tool("qemu-nbd")
    image = blank(tmp_path / "disk", 1 * MiB)
    vm = replace(source([image], [controller]), nics=(Nic(mac=NIC.mac, model=model),))
    with serve([image], run) as endpoints:
        caps = NoConversion().convert(vm, endpoints, OPTIONS, run).caps
    assert (caps.block_bus, caps.machine, caps.net_model) == (bus, machine, card)
    assert not caps.balloon


# With it ------------------------------------------------------------------------------------------


@pytest.mark.appliance
def test_a_debian_is_converted_checked_and_made_to_log(run, guest_image, events_seen):
    image = guest_image("tiny-debian")
    before = image.stat().st_mtime_ns
    converter = GuestfsConverter()
    with serve([image], run) as endpoints:
        guest = converter.convert(source([image]), endpoints, OPTIONS, run)
        assert (guest.os.distro, guest.root, guest.boot_disk) == ("debian", "/dev/sda1", 0)
        assert guest.caps.block_bus is BlockBus.VIRTIO_BLK
        assert [(nic.mac, nic.name) for nic in guest.nics] == [(NIC.mac, "ens192")]
        assert any(change.where == "/etc/fstab" for change in guest.changes)
        assert not guest.serial_console
        converter.add_serial_console(guest, endpoints, OPTIONS, run)
        with open_appliance(endpoints, OPTIONS, run) as g:
            assert g.fsck("ext4", "/dev/sda1") == 0
            g.mount_ro("/dev/sda1", "/")
            assert b"/dev/sda1" not in g.read_file("/etc/fstab")
            assert b"ttyS0" in g.read_file("/boot/grub/grub.cfg")
    assert image.stat().st_mtime_ns == before
    steps = [event.step for event in events_seen if isinstance(event, StepStarted)]
    assert steps[:2] == ["convert:launch", "convert:volumes"]
    assert "convert:check-after" in steps
    told = [event for event in events_seen if isinstance(event, StepFinished)]
    assert {timing.name for timing in guest.timings} <= {event.step for event in told}
    assert guest.timings[0].name == "convert:launch"


@pytest.mark.appliance
def test_inspecting_tells_all_that_is_wrong_and_plans_the_rest(run, guest_image):
    image = guest_image("tiny-two-roots")
    with serve([image], run) as endpoints:
        inspection = GuestfsConverter().inspect(source([image]), endpoints, OPTIONS, run)
    assert inspection.roots == ("/dev/sda1", "/dev/sda2")
    assert inspection.root == "/dev/sda1"
    assert not inspection.convertible
    assert "root-ambiguous" in [f.id for f in inspection.findings if f.severity == "blocker"]
    assert inspection.kernel
    assert inspection.changes
    assert inspection.filesystems == {"/dev/sda1": "ext4", "/dev/sda2": "ext4"}
    assert [nic.name for nic in inspection.nics] == ["ens192"]
