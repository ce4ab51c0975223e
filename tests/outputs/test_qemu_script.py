"""The script of -o qemu: it boots, wherever it is called from and whatever the guest is called."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

import v2v
from tests.machines import machine
from v2v import qemu as emulator
from v2v import uefi
from v2v.hardware import Hardware, Topology
from v2v.outputs._files import safe_name
from v2v.outputs.qemu import QemuOutput, script
from v2v.types import BlockBus, DiskFormat, Firmware, Machine, MiB, Nic, TargetDisk

# A boot sector in 16-bit code that prints to the first serial port and leaves QEMU by
# isa-debug-exit:
#   31 c0 8e d8        xor ax, ax; mov ds, ax
#   fc be 19 7c        cld; mov si, 0x7c19
#   ba f8 03           mov dx, 0x3f8
#   ac 84 c0 74 03     next: lodsb; test al, al; jz end
#   ee eb f8           out dx, al; jmp next
#   ba f4 00 b0 10 ee  end: mov dx, 0xf4; mov al, 0x10; out dx, al
CODE = bytes.fromhex("31c0 8ed8 fc be197c baf803 ac 84c0 7403 ee ebf8 baf400 b010 ee")
GREETING = b"the boot sector runs\r\n\0"
EXIT = ["-device", "isa-debug-exit,iobase=0xf4,iosize=1"]
EXITED = 0x10 << 1 | 1


def boot_sector() -> bytes:
    assert len(CODE) == 0x19
    return (CODE + GREETING).ljust(510, b"\0") + b"\x55\xaa"


def write_guest(folder: Path, hardware: Hardware, sectors: list[bytes]) -> Path:
    disks = []
    for index, sector in enumerate(sectors):
        path = folder / f"{hardware.name}-sd{chr(97 + index)}"
        path.write_bytes(sector.ljust(MiB, b"\0"))
        disks.append(TargetDisk(str(path), str(path), DiskFormat.RAW, MiB))
    path = folder / f"{hardware.name}.sh"
    path.write_text(script(hardware, disks))
    path.chmod(QemuOutput.file_mode)
    return path


def run_script(path: Path, *words: str, seconds: float = 120) -> subprocess.CompletedProcess[str]:
    env = {k: v for k, v in os.environ.items() if k not in ("DISPLAY", "WAYLAND_DISPLAY")}
    return subprocess.run(
        [path, *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=seconds,
        cwd="/",
        env=env,
    )


@pytest.fixture(autouse=True)
def tools(need_tool) -> None:
    need_tool("qemu-system-x86_64")


@pytest.mark.parametrize(
    "hardware",
    [
        pytest.param(machine(), id="virtio-blk"),
        pytest.param(machine(block_bus=BlockBus.VIRTIO_SCSI), id="virtio-scsi"),
        pytest.param(machine(block_bus=BlockBus.SATA), id="sata"),
        pytest.param(machine(block_bus=BlockBus.IDE, machine=Machine.I440FX), id="ide"),
        pytest.param(
            machine(name=safe_name("a,b:c 'd' \"e\" $(reboot) `x` %s {} \\ -")), id="name"
        ),
    ],
)
def test_it_boots(hardware: Hardware, tmp_path: Path) -> None:
    path = write_guest(tmp_path, hardware, [boot_sector()])
    done = run_script(path, *EXIT)
    assert "the boot sector runs" in done.stdout, done.stderr
    assert done.stderr == ""
    assert done.returncode == EXITED


def test_it_boots_from_the_boot_disk_after_the_folder_moved(tmp_path: Path) -> None:
    made, moved = tmp_path / "made", tmp_path / "it's, moved"
    made.mkdir()
    path = write_guest(made, machine(disk_count=2, boot_disk=1), [b"", boot_sector()])
    made.rename(moved)
    done = run_script(moved / path.name, *EXIT)
    assert "the boot sector runs" in done.stdout, done.stderr


def test_it_boots_with_all_that_a_source_can_tell(tmp_path: Path) -> None:
    nics = (Nic(mac="52:54:00:11:22:33"), Nic(mac="52:54:00:11:22:34", connected=False))
    hardware = machine(
        vcpus=4,
        topology=Topology(1, 2, 2),
        serials=("A 1",),
        cdroms=2,
        sound="ich9",
        nics=nics,
        genid="12345678-1234-1234-1234-123456789abc",
    )
    path = write_guest(tmp_path, hardware, [boot_sector()])
    done = run_script(path, *EXIT)
    assert "the boot sector runs" in done.stdout, done.stderr
    assert done.returncode == EXITED


def test_an_unplugged_card_reaches_nobody() -> None:
    nics = (Nic(connected=False), Nic(), Nic(connected=False))
    text = script(machine(nics=nics, disk_count=0), [])
    netdevs = [line.split()[1] for line in text.splitlines() if "-netdev" in line]
    assert netdevs == ["hubport,hubid=0,id=net0", "user,id=net1", "hubport,hubid=2,id=net2"]


def test_uefi_starts_with_variables_of_its_own(tmp_path: Path) -> None:
    """The firmware of an empty disk; QEMU is stopped at its prompt by the monitor."""
    firmware = uefi.uefi_firmware("x86_64")
    path = write_guest(tmp_path, machine(firmware=Firmware.UEFI, disk_count=1), [b""])
    with subprocess.Popen(
        [path, "-display", "none", "-nic", "none"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        assert process.stdout is not None
        seen = b""
        while b"BdsDxe" not in seen and (more := process.stdout.read1(4096)):
            seen += more
        process.terminate()
    assert b"BdsDxe" in seen, seen
    variables = tmp_path / "demo-vars.fd"
    assert variables.stat().st_size == Path(firmware.variables).stat().st_size
    assert os.access(variables, os.W_OK)


def test_more_disks_than_the_bus_takes_are_refused_before_they_are_copied(tmp_path: Path) -> None:
    """As they are, disks are on SATA, which takes six."""
    disks, target = [tmp_path / f"disk{number}" for number in range(7)], tmp_path / "target"
    target.mkdir()
    for disk in disks:
        disk.write_bytes(boot_sector())
    seen: list[v2v.Event] = []
    with pytest.raises(v2v.V2VError) as caught:
        v2v.convert(
            *disks,
            output="qemu",
            storage=target,
            conversion=v2v.ConversionOptions(convert=False),
            jobs=tmp_path / "jobs",
            emit=seen.append,
        )
    assert caught.value.id == "too-many-disks"
    assert not any(isinstance(event, v2v.events.CopyProgress) for event in seen)
    assert not list(target.iterdir())


def test_a_missing_emulator_is_told(tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in ("sh", "dirname"):
        (tools / tool).symlink_to(shutil.which(tool) or "")
    path = write_guest(tmp_path, machine(), [b""])
    text = path.read_text().replace(emulator.RPM_EMULATOR, "/none/qemu-kvm")
    path.write_text(text)
    done = subprocess.run([path], capture_output=True, text=True, env={"PATH": str(tools)})
    assert done.returncode == 1
    assert done.stderr == "QEMU for x86_64 guests is not installed\n"


@pytest.mark.parametrize("firmware", Firmware)
def test_the_shell_reads_it(firmware: Firmware, tmp_path: Path, need_tool) -> None:
    """Every argument arrives as QEMU's wrapper made it."""
    hostile = machine(name=safe_name("@CODE@ $x '\" \\ @VARIABLES@"), firmware=firmware)
    path = write_guest(tmp_path, hostile, [b""])
    subprocess.run(["sh", "-n", path], check=True)
    words = shlex.split(path.read_text().split('exec "$qemu"')[1].replace("\\\n", ""))
    expected = emulator.device_arguments(hostile, [(f"./{hostile.name}-sda", DiskFormat.RAW)])
    assert words[5 : 5 + len(expected)] == expected
