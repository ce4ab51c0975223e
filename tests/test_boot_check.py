"""The boot check: what a console tells, and real guests of 512 bytes that pass, fail and hang."""

from __future__ import annotations

import json
import socket
import struct
import subprocess
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.test_qemu import HARDWARE
from v2v.boot_check import boot_check
from v2v.boot_check.agent import Agent, interfaces
from v2v.boot_check.channel import MAX_MESSAGE, Channel
from v2v.boot_check.console import LOG_HALF, Console, clean, read_console
from v2v.cancel import Cancel
from v2v.errors import Cancelled
from v2v.process import ToolError
from v2v.run import Run
from v2v.types import (
    BlockBus,
    BootEvidence,
    ConvertedGuest,
    DiskFormat,
    Firmware,
    GuestCaps,
    GuestOS,
    KiB,
    Machine,
    MiB,
    NetModel,
    Nic,
    TargetDisk,
)

DEBIAN = """\
SeaBIOS (version 1.16.2-debian-1.16.2-1)
Booting from Hard Disk...
Booting from 0000:7c00
\x1b[2J\x1b[1;1H                             GNU GRUB  version 2.06-13
Loading Linux 6.1.0-18-amd64 ...\r
[    0.000000] Linux version 6.1.0-18-amd64 (debian-kernel@lists.debian.org)\r
[    1.204560] virtio_blk virtio2: [vda] 8388608 512-byte logical blocks (4.29 GB/4.00 GiB)\r\r
[    1.404560] virtio_net virtio0 ens192: renamed from eth0\r
[    2.130000] EXT4-fs (vda1): mounted filesystem with ordered data mode. Quota mode: none.\r
[    2.900000] EXT4-fs (vda2): mounted filesystem with ordered data mode. Quota mode: none.\r
Welcome to \x1b[1mDebian GNU/Linux 12 (bookworm)\x1b[0m!\r
[\x1b[0;32m  OK  \x1b[0m] Reached target \x1b[0;1;39mmulti-user.target\x1b[0m - Multi-User System.\r

Debian GNU/Linux 12 web1 ttyS0\r
\r
web1 login: """


def test_debian_boot_is_read_to_its_login_prompt():
    seen = read_console(DEBIAN)
    assert seen.reached == "login"
    assert seen.root_device == "vda1"
    assert seen.block_driver == "virtio_blk"
    assert seen.nic_drivers == {"ens192": "virtio_net"}
    assert seen.trouble is None
    assert not seen.fatal


@pytest.mark.parametrize("size", [1, 7, 64])
def test_pieces_of_any_size_tell_the_same(size):
    console = Console()
    data = DEBIAN.encode()
    for start in range(0, len(data), size):
        console.feed(data[start : start + size])
    assert console.seen == read_console(DEBIAN)
    assert "\x1b" not in console.log
    assert "Debian GNU/Linux 12 web1 ttyS0\n\nweb1 login:" in console.log


@pytest.mark.parametrize(
    ("line", "reached"),
    [
        ("SeaBIOS (version 1.16.2-debian-1.16.2-1)", "firmware"),
        ('BdsDxe: loading Boot0001 "UEFI Misc Device" from PciRoot(0x0)/Pci(0x2,0x0)', "firmware"),
        ('BdsDxe: starting Boot0001 "UEFI Misc Device" from PciRoot(0x0)', "bootloader"),
        ('BdsDxe: starting Boot0002 "EFI Internal Shell" from Fv(7CB8BDC9)', "firmware"),
        ("                GNU GRUB  version 2.06-13+deb12u1", "bootloader"),
        ("[    0.000000] Linux version 5.14.0-362.8.1.el9_3.x86_64", "kernel"),
        ("[    4.31] XFS (dm-0): Mounting V5 Filesystem", "root"),
        ("[    4.31] BTRFS info (device vda3): using crc32c (crc32c-intel)", "root"),
        ("[    4.3] EXT4-fs (vda1): mounted filesystem 1b2c ro with ordered data mode.", "root"),
        ("[    1.3][    T1] VFS: Mounted root (ext4 filesystem) readonly on device 254:1.", "root"),
        ("Welcome to Fedora Linux 39 dracut-059-16.fc39 (Initramfs)!", "nothing"),
        ("Welcome to GRUB!", "bootloader"),
        ("Welcome to Ubuntu 22.04.3 LTS!", "userspace"),
        ("[  OK  ] Reached target Graphical Interface.", "userspace"),
        ("[  OK  ] Reached target initrd-root-device.target - Initrd Root Device.", "nothing"),
        ("   OpenRC 0.48 is starting up Linux 6.1.57-0-virt (x86_64)", "userspace"),
        ("localhost login: ", "login"),
        ("localhost login: [   22.1] IPv6: ADDRCONF(NETDEV_CHANGE): eth0", "login"),
        ("[  OK  ] Started systemd-logind.service - User Login Management.", "nothing"),
        ("Last login: Mon Jan  1 on ttyS0", "nothing"),
    ],
)
def test_milestones(line, reached):
    assert read_console(line).reached == reached


@pytest.mark.parametrize(
    ("text", "trouble"),
    [
        ("Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)", None),
        (
            "Gave up waiting for root file system device.  Common problems:\n"
            " - Boot args (cat /proc/cmdline)\n"
            "ALERT!  /dev/sda1 does not exist.  Dropping to a shell!\n\n"
            "BusyBox v1.35.0 (Debian) built-in shell (ash)\n(initramfs) ",
            "ALERT!  /dev/sda1 does not exist.  Dropping to a shell!",
        ),
        ("dracut-initqueue[352]: Warning: Could not boot.", None),
        ("error: unknown filesystem.\nEntering rescue mode...\ngrub rescue> ", "grub rescue>"),
        ("No bootable device.  Retrying in 60 seconds.", None),
        ("BdsDxe: No bootable option or device was found.", None),
        ('You are in emergency mode. After logging in, type "journalctl -xb"', None),
    ],
)
def test_fatal_lines(text, trouble):
    seen = read_console(text)
    assert seen.fatal
    assert seen.trouble == (trouble or text)


def test_trouble_that_a_guest_can_survive():
    seen = read_console("[FAILED] Failed to mount mnt-data.mount - /mnt/data.\nweb1 login: ")
    assert (seen.reached, seen.fatal) == ("login", False)
    assert seen.trouble is not None


def test_drivers_of_scsi_disks_and_later_names():
    seen = read_console(
        "[ 1.0] scsi host0: Virtio SCSI HBA\n"
        "[ 1.1] sd 0:0:0:0: [sda] 8388608 512-byte logical blocks\n"
        "[ 1.2] virtio_net virtio1 enp0s2: renamed from eth0\n"
        "[ 1.3] virtio_net virtio1 ens192: renamed from enp0s2\n"
        "[ 1.4] XFS (dm-0): Mounting V5 Filesystem\n"
    )
    assert seen.root_device == "dm-0"
    assert seen.block_driver == "virtio_scsi"
    assert seen.nic_drivers == {"ens192": "virtio_net"}


def test_hostile_console_is_bounded_and_cleaned():
    console = Console()
    for _ in range(40):
        console.feed(b"A" * (128 * KiB))
    console.feed(b"\n".join(b"virtio_net virtio0 n%d: renamed from e" % i for i in range(1000)))
    console.feed(b"\x1b]0;title\x07\xff\xfe\x00\x07\x9b31mend\n")
    assert len(console.log) < 2 * LOG_HALF + 100
    assert "left out" in console.log
    assert len(console.seen.nic_drivers) <= 64
    assert console.last_line is not None
    assert console.last_line.endswith("end")
    assert clean("\x1b[1;31mred\x1b[0m\x1b(B\x07") == "red"


# The guest agent ----------------------------------------------------------------------------------


@pytest.fixture
def agent_pair():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield Agent(Channel(ours)), theirs


def answer(agent: Agent, peer: socket.socket, message: object) -> dict[str, object]:
    """Send a message to the agent's client; give the command that follows, if any."""
    peer.sendall(json.dumps(message).encode() + b"\n")
    agent.receive()
    return {} if agent.done else json.loads(peer.recv(4096))


def test_agent_tells_its_version_and_the_names_of_nics(agent_pair):
    agent, peer = agent_pair
    agent.connect()
    sync = json.loads(peer.recv(4096).lstrip(b"\xff"))
    peer.sendall(b'{"stale": tr')  # what an earlier conversation left in the channel
    peer.sendall(b"\xff")
    assert answer(agent, peer, {"return": sync["arguments"]["id"]})["execute"] == "guest-info"
    network = answer(agent, peer, {"return": {"version": "7.2.5", "supported_commands": []}})
    assert network["execute"] == "guest-network-get-interfaces"
    nics = [{"name": "lo"}, {"name": "ens192", "hardware-address": "52:54:00:00:00:0A"}]
    assert answer(agent, peer, {"return": nics}) == {}
    assert agent.version == "7.2.5"
    assert agent.interfaces == {"52:54:00:00:00:0a": "ens192"}


def test_hostile_agent_is_survived(agent_pair):
    agent, peer = agent_pair
    agent.connect()
    sync = json.loads(peer.recv(4096).lstrip(b"\xff"))
    for junk in (b"[" * 100_000, b"null", b"[]", b'{"return": 0}', b"\xff\xff", b'{"a":'):
        peer.sendall(junk + b"\n")
        agent.receive()
        agent.receive()
    answer(agent, peer, {"return": sync["arguments"]["id"]})
    answer(agent, peer, {"return": {"version": "\x1b[31m" + "9" * 1000}})
    assert agent.version is not None
    assert len(agent.version) <= 64
    assert "\x1b" not in agent.version
    assert interfaces([None, 1, {"name": 1}, {"name": "x", "hardware-address": []}]) == {}


def test_agent_that_never_ends_its_line_is_cut_off(agent_pair):
    agent, peer = agent_pair
    peer.setblocking(False)
    for _ in range(MAX_MESSAGE // (32 * KiB) + 4):
        peer.send(b"x" * (32 * KiB))
        agent.receive()
    assert agent.channel.closed


# Real guests --------------------------------------------------------------------------------------


HALT = b"\xf4\xeb\xfd"
RESET = b"\xb0\xfe\xe6\x64" + HALT  # through the keyboard controller


def boot_sector(text: bytes, *, then: bytes = HALT) -> bytes:
    """A boot sector that writes `text` to the first serial port and then halts."""
    code = (
        b"\xfa\xfc\x31\xc0\x8e\xd8"  # cli; cld; ds = 0
        b"\xbe"
        + struct.pack("<H", 0x7C00 + 64)  # si = the text
        + b"\xac\x84\xc0\x74\x12"  # next: al = [si++]; end at 0
        b"\x88\xc1\xba\xfd\x03\xec\xa8\x20\x74\xfb"  # wait until the transmitter is empty
        b"\x88\xc8\xba\xf8\x03\xee"  # send it
    )
    code += b"\xeb" + struct.pack("b", 9 - (len(code) + 2)) + then
    assert len(code) <= 64
    sector = code.ljust(64, b"\0") + text + b"\0"
    return sector.ljust(510, b"\0") + b"\x55\xaa"


GUEST = ConvertedGuest(
    os=GuestOS("linux", "debian", "12", "Debian GNU/Linux 12", "x86_64"),
    firmware=Firmware.BIOS,
    root="/dev/sda1",
    boot_disk=0,
    caps=GuestCaps(BlockBus.VIRTIO_BLK, NetModel.VIRTIO, Machine.Q35),
    nics=(Nic(mac="52:54:00:00:00:01"),),
    serial_console=True,
)
ONE_DISK = replace(HARDWARE, disk_count=1, boot_disk=0, nics=GUEST.nics, memory=32 * MiB, vcpus=1)


@pytest.fixture(autouse=True)
def little_grace(monkeypatch):
    """These guests say all they have to say at once."""
    monkeypatch.setattr("v2v.boot_check.AFTER_LOGIN", {"kvm": 0.1, "tcg": 0.1})
    monkeypatch.setattr("v2v.boot_check.AFTER_TROUBLE", 0.1)


@pytest.fixture
def disk(tmp_path: Path):
    def make(sector: bytes) -> TargetDisk:
        path = tmp_path / "disk.raw"
        path.write_bytes(sector.ljust(MiB, b"\0"))
        path.chmod(0o400)
        return TargetDisk(str(path), str(path), DiskFormat.RAW, MiB)

    return make


def check(disk: TargetDisk, run: Run, *, seconds: float = 300, hardware=ONE_DISK) -> BootEvidence:
    before = Path(disk.location).read_bytes()
    try:
        return boot_check(
            hardware, GUEST, [disk], seconds=seconds, instrument=lambda disks: None, run=run
        )
    finally:
        assert Path(disk.location).read_bytes() == before
        assert list(run.folder.glob("*.qcow2")) == []


def test_guest_that_asks_for_a_login_passes(need_tool, run, disk):
    need_tool("qemu-system-x86_64")
    evidence = check(disk(boot_sector(b"\r\nLinux version 6.1\r\ntiny login: ")), run)
    assert evidence.passed
    assert (evidence.reached, evidence.trouble, evidence.agent) == ("login", None, None)
    assert "Booting from 0000:7c00" in (run.folder / "boot-check.log").read_text()
    assert (run.folder / "boot-check.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("machine", [Machine.Q35, Machine.I440FX])
@pytest.mark.parametrize("bus", list(BlockBus))
def test_every_bus_boots(need_tool, run, disk, machine, bus):
    need_tool("qemu-system-x86_64")
    hardware = replace(ONE_DISK, machine=machine, block_bus=bus)
    assert check(disk(boot_sector(b"tiny login: ")), run, hardware=hardware).passed


def test_panic_fails_before_the_time_is_up(need_tool, run, disk):
    need_tool("qemu-system-x86_64")
    panic = b"[    1.0] Kernel panic - not syncing: VFS: Unable to mount root fs\r\n"
    began = time.monotonic()
    evidence = check(disk(boot_sector(b"Linux version 6.1\r\n" + panic)), run, seconds=400)
    assert time.monotonic() - began < 350
    assert not evidence.passed
    assert evidence.reached == "kernel"
    assert evidence.trouble == "Kernel panic - not syncing: VFS: Unable to mount root fs"


def test_silent_guest_fails_when_the_time_is_up(need_tool, tmp_path, disk, monkeypatch):
    """Which is soon after it was started, however long that takes here."""
    need_tool("qemu-system-x86_64")
    later = [0.0]
    now = SimpleNamespace(monotonic=lambda: time.monotonic() + later[0])
    monkeypatch.setattr("v2v.boot_check.time", now)

    def emit(event: object) -> None:
        if "bootloader" in getattr(event, "text", ""):
            later[0] = 297.0

    with Run.create(tmp_path / "jobs", "x", emit=emit) as run:
        evidence = check(disk(boot_sector(b"")), run)
    assert not evidence.passed
    assert evidence.reached == "bootloader"
    assert evidence.trouble is not None
    assert evidence.trouble.startswith("no login prompt within 300 s")
    assert evidence.screenshot == "boot-check.png"


def test_disk_without_boot_sector_is_no_bootable_device(need_tool, run, disk):
    need_tool("qemu-system-x86_64")
    evidence = check(disk(bytes(512)), run, seconds=120)
    assert not evidence.passed
    assert "No bootable device" in (evidence.trouble or "")


def test_guest_that_resets_itself_for_ever_fails(need_tool, run, disk):
    need_tool("qemu-system-x86_64")
    evidence = check(disk(boot_sector(b"", then=RESET)), run, seconds=120)
    assert not evidence.passed
    assert evidence.trouble == "the guest resets itself again and again"


def test_uefi_firmware_starts_and_finds_nothing(need_tool, run, disk):
    need_tool("qemu-system-x86_64")
    hardware = replace(ONE_DISK, firmware=Firmware.UEFI, memory=256 * MiB)
    evidence = check(disk(bytes(512)), run, hardware=hardware)
    assert not evidence.passed
    assert evidence.reached == "firmware"
    assert evidence.trouble is not None
    assert evidence.trouble.startswith("BdsDxe: failed to load Boot0001")


def test_instrumenting_writes_the_throw_away_copy_alone(need_tool, run, disk):
    need_tool("qemu-system-x86_64")
    import nbd

    silent = disk(boot_sector(b""))
    before = Path(silent.location).read_bytes()

    def instrument(disks):
        handle = nbd.NBD()
        handle.connect_uri(disks[0].uri)
        handle.pwrite(boot_sector(b"tiny login: "), 0)
        handle.flush()
        handle.shutdown()

    evidence = boot_check(
        ONE_DISK,
        replace(GUEST, serial_console=False),
        [silent],
        seconds=300,
        instrument=instrument,
        run=run,
    )
    assert (evidence.passed, evidence.instrumented) == (True, True)
    assert Path(silent.location).read_bytes() == before


def test_cancel_ends_the_boot(need_tool, tmp_path, disk):
    need_tool("qemu-system-x86_64")
    cancel = Cancel()

    def emit(event: object) -> None:
        if "bootloader" in getattr(event, "text", ""):
            threading.Thread(target=cancel.cancel).start()

    with (
        Run.create(tmp_path / "jobs", "x", emit=emit, cancel=cancel) as run,
        pytest.raises(Cancelled),
    ):
        check(disk(boot_sector(b"")), run, seconds=300)
    assert subprocess.run(["pgrep", "-f", str(tmp_path)], capture_output=True).returncode == 1


def test_emulator_that_cannot_start_is_the_hosts_error(need_tool, run, disk):
    need_tool("qemu-system-x86_64")
    hardware = replace(ONE_DISK, machine=Machine.VIRT)  # of other architectures
    with pytest.raises(ToolError) as error:
        check(disk(boot_sector(b"")), run, hardware=hardware)
    assert error.value.id == "emulator-ended"
    assert "machine" in error.value.message
