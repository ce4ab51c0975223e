"""Copying a guest as it is: no appliance, and hardware that an unprepared guest knows."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from conversion import boot
from conversion.inspection import UNKNOWN
from v2v.converter import Inspection, nobody_waits
from v2v.endpoint import Endpoint
from v2v.job import ConversionOptions
from v2v.run import Run
from v2v.types import (
    BlockBus,
    ConvertedGuest,
    Finding,
    Firmware,
    GuestCaps,
    Machine,
    NetModel,
    Source,
)

# The source's own controllers and cards, where QEMU has them; else what systems since about 2007
# have drivers for.
BUSES = {
    "ide": (BlockBus.IDE, Machine.I440FX),
    "virtio": (BlockBus.VIRTIO_BLK, Machine.Q35),
}
CARDS = {
    "e1000": NetModel.E1000,
    "e1000e": NetModel.E1000E,
    "rtl8139": NetModel.RTL8139,
    "virtio": NetModel.VIRTIO,
}
# In libosinfo's and VMware's names of systems: microsoft.com/win/10, windows9_64Guest, winXPPro.
WINDOWS = re.compile(r"microsoft|windows|^win", re.IGNORECASE)
NOT_CONVERTED = Finding(
    "info",
    "not-converted",
    "the guest is not converted: it gets emulated devices, and nobody looked inside",
)


class NoConversion:
    """A Converter that changes nothing."""

    def convert(
        self,
        source: Source,
        endpoints: Sequence[Endpoint],
        options: ConversionOptions,
        run: Run,
        trimmed: Callable[[], None] = nobody_waits,
    ) -> ConvertedGuest:
        heads = boot.read_heads(endpoints)
        firmware = boot.firmware(source, heads)
        doubt = boot.firmware_doubt(source, heads)
        return ConvertedGuest(
            os=UNKNOWN,
            firmware=firmware,
            root="",
            boot_disk=boot.boot_disk(firmware, heads, {}),
            caps=_caps(source, firmware),
            nics=source.nics or (),
            findings=(NOT_CONVERTED, doubt) if doubt else (NOT_CONVERTED,),
        )

    def inspect(
        self, source: Source, endpoints: Sequence[Endpoint], options: ConversionOptions, run: Run
    ) -> Inspection:
        guest = self.convert(source, endpoints, options, run)
        return Inspection(
            os=guest.os,
            firmware=guest.firmware,
            root="",
            roots=(),
            boot_disk=guest.boot_disk,
            kernel=None,
            nics=guest.nics,
            filesystems={},
            convertible=False,
            changes=(),
            findings=guest.findings,
        )

    def add_serial_console(
        self,
        guest: ConvertedGuest,
        endpoints: Sequence[Endpoint],
        options: ConversionOptions,
        run: Run,
    ) -> None:
        """Nothing: the inside of the guest is not known."""


def _caps(source: Source, firmware: Firmware) -> GuestCaps:
    controllers = {disk.controller for disk in source.disks}
    bus, machine = BlockBus.SATA, Machine.Q35
    if len(controllers) == 1 and firmware is Firmware.BIOS:
        bus, machine = BUSES.get(controllers.pop() or "", (bus, machine))
    models = [nic.model for nic in source.nics or () if nic.model]
    card = CARDS.get(models[0], NetModel.E1000E) if models else NetModel.E1000E
    return GuestCaps(
        block_bus=bus,
        net_model=card,
        machine=machine,
        rng=False,
        balloon=False,
        pvpanic=False,
        vsock=False,
        rtc_utc=_rtc_utc(source),
    )


def _rtc_utc(source: Source) -> bool:
    """What the source says, for the guest lived with it; else Windows alone wants local time."""
    if source.rtc_utc is not None:
        return source.rtc_utc
    return not WINDOWS.search(source.osinfo or "")
