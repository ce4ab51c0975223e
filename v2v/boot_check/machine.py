"""A QEMU that runs for the length of a `with` block, isolated, and its three lines to us."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from v2v import process, qemu, uefi
from v2v.boot_check.channel import Channel
from v2v.hardware import Hardware, with_vcpus
from v2v.process import ToolError, last_line, log_text
from v2v.run import Run
from v2v.types import DiskFormat, Firmware, GiB, KiB, MiB

LOG = "boot-check-qemu.log"
LEAST_MEMORY = 1 * GiB

# A guest is hostile: QEMU may not start programs or raise its privileges.
SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"


@dataclass
class VirtualMachine:
    process: subprocess.Popen[bytes]
    console: socket.socket
    monitor: Channel
    agent: Channel
    log: Path

    def failure(self) -> ToolError:
        """Why QEMU itself ended."""
        words = last_line(log_text(self.log)) or f"it ended with {self.process.poll()}"
        return ToolError(f"QEMU ended during the boot check: {words}", id="emulator-ended")


@contextmanager
def start(
    hardware: Hardware, disks: Sequence[Path], accelerator: str, run: Run
) -> Iterator[VirtualMachine]:
    """Boot qcow2 `disks`, which the guest may write, on a network that leads nowhere."""
    log = run.folder / "log" / LOG
    with ExitStack() as stack:
        ours, theirs = zip(*(_pair(stack) for _ in range(3)), strict=True)
        argv = [
            *arguments(fit_host(hardware), disks, accelerator),
            *_lines(hardware, [end.fileno() for end in theirs]),
            *_firmware(hardware, run),
        ]
        fds = [end.fileno() for end in theirs]
        qemu_process = stack.enter_context(process.server(argv, log_file=log, pass_fds=fds))
        for end in theirs:
            end.close()  # so that QEMU's end is the end of the line
        stack.enter_context(run.cancel.calling(qemu_process.terminate))
        console, monitor, agent = ours
        console.setblocking(False)
        vm = VirtualMachine(qemu_process, console, Channel(monitor), Channel(agent), log)
        try:
            yield vm
        finally:
            qemu_process.kill()  # a throw-away guest has nothing to save


def arguments(hardware: Hardware, disks: Sequence[Path], accelerator: str) -> list[str]:
    """The machine without its connections to us. The network answers DHCP and leads nowhere."""
    images = [(str(disk), DiskFormat.QCOW2) for disk in disks]
    argv = [
        qemu.emulator(hardware.arch),
        *("-sandbox", SANDBOX),
        *qemu.accelerator_arguments(accelerator),
        *qemu.device_arguments(hardware, images, drive_options=["cache=unsafe"]),
        *("-display", "none"),
        *("-action", "shutdown=pause,panic=none"),  # so that a screenshot can still be taken
    ]
    for index in range(len(hardware.nics)):
        argv += ["-netdev", f"user,id={qemu.netdev_id(index)},restrict=on"]
    return argv


def _pair(stack: ExitStack) -> tuple[socket.socket, socket.socket]:
    ours, theirs = socket.socketpair()
    stack.enter_context(ours)
    stack.enter_context(theirs)
    return ours, theirs


def _lines(hardware: Hardware, fds: Sequence[int]) -> list[str]:
    console, monitor, agent = fds
    argv = [
        *("-chardev", f"socket,id={qemu.SERIAL},fd={console},mux=on"),
        *("-chardev", f"socket,id=monitor0,fd={monitor}", "-mon", "monitor0,mode=control"),
        *("-chardev", f"socket,id=channel0,fd={agent}"),
        *qemu.agent_arguments("channel0"),
    ]
    if hardware.arch in qemu.X86:  # SeaBIOS says here what it boots from, and that it cannot
        argv += ["-device", f"isa-debugcon,iobase=0x402,chardev={qemu.SERIAL}"]
    return argv


def _firmware(hardware: Hardware, run: Run) -> list[str]:
    if hardware.firmware is not Firmware.UEFI:
        return []
    firmware = uefi.uefi_firmware(hardware.arch, secure_boot=hardware.secure_boot)
    variables = run.tmp / "boot-check-vars.fd"
    shutil.copyfile(firmware.variables, variables)
    return uefi.firmware_arguments(hardware, firmware, str(variables))


def fit_host(hardware: Hardware) -> Hardware:
    """No more processors than this host has, and no more than half of the memory it has free."""
    memory = max(LEAST_MEMORY, available_memory() // 2)
    fitting = with_vcpus(hardware, min(hardware.vcpus, len(os.sched_getaffinity(0))))
    return replace(fitting, memory=min(hardware.memory, memory // MiB * MiB))


def available_memory() -> int:
    """Bytes that programs can still get (MemAvailable of proc(5))."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * KiB
    return LEAST_MEMORY
