"""The virtual hardware that suits a Linux guest: what its chosen kernel has drivers for."""

from __future__ import annotations

import re
from dataclasses import replace

from conversion.guest import Guest
from conversion.linux.kernels import Kernel, best_bus, best_net, chosen_kernel
from v2v.types import BlockBus, GuestCaps, Machine

VIRTIO_1_0 = (4, 0)  # the first Linux with modern virtio devices


def caps(guest: Guest) -> GuestCaps:
    found = kernel_caps(chosen_kernel(guest), guest.options.block_bus, guest.os.arch)
    return replace(found, rtc_utc=rtc_utc(guest.read_text("/etc/adjtime") or ""))


def rtc_utc(adjtime: str) -> bool:
    """hwclock(8) notes in the third line of /etc/adjtime what the clock runs in, UTC or LOCAL.

    Without that line it is UTC. What the guest takes the clock for counts more than what the
    source's clock showed: if they disagreed, its time was wrong from boot on.
    """
    lines = adjtime.split("\n")
    return len(lines) < 3 or lines[2].strip() != "LOCAL"


def kernel_caps(kernel: Kernel, preferred: str, arch: str) -> GuestCaps:
    bus = best_bus(kernel, preferred) or BlockBus.IDE
    modern = release(kernel.version) >= VIRTIO_1_0
    return GuestCaps(
        block_bus=bus,
        net_model=best_net(kernel),
        machine=machine(arch, bus, modern=modern),
        arch=arch,
        rng=kernel.has("virtio_rng"),
        balloon=kernel.has("virtio_balloon"),
        pvpanic=kernel.has("pvpanic") or kernel.has("pvpanic_pci"),
        vsock=kernel.has("vmw_vsock_virtio_transport"),
        virtio_1_0=modern,
    )


def machine(arch: str, bus: BlockBus, *, modern: bool) -> Machine:
    """Q35 has PCI Express and no IDE controller; devices of virtio before 1.0 want plain PCI."""
    if arch not in ("x86_64", "i686", "i586", "i486", "i386"):
        return Machine.VIRT
    if bus is BlockBus.IDE or not (modern or bus is BlockBus.SATA):
        return Machine.I440FX
    return Machine.Q35


def release(version: str) -> tuple[int, int]:
    match = re.match(r"(\d+)\.(\d+)", version)
    return (int(match[1]), int(match[2])) if match else (0, 0)
