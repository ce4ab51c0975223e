"""The contract of guest conversion. The implementation is the package `conversion`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from v2v.endpoint import Endpoint
from v2v.job import ConversionOptions
from v2v.run import Run
from v2v.types import (
    Change,
    ConvertedGuest,
    Finding,
    Firmware,
    GuestOS,
    Nic,
    Source,
    Timing,
)


@dataclass(frozen=True, slots=True)
class Inspection:
    """What `v2v inspect` tells of a guest, and what conversion would do to it."""

    os: GuestOS
    firmware: Firmware
    root: str
    roots: tuple[str, ...]  # all that were found, root among them
    boot_disk: int
    kernel: str | None
    nics: tuple[Nic, ...]
    filesystems: dict[str, str]  # device: type
    convertible: bool
    changes: tuple[Change, ...]  # what conversion would change
    findings: tuple[Finding, ...]
    timings: tuple[Timing, ...] = ()


def nobody_waits() -> None:
    """The `trimmed` of those who copy nothing while a guest is converted."""


class Converter(Protocol):
    """Repairs a guest so that it boots and runs well on KVM.

    `endpoints` are writable overlays, one per source disk; the converter knows nothing else of
    where the disks are. It flushes what it wrote before it returns.

    `trimmed` is called once, when the guest's free space was given back and nothing is changed
    yet: what still comes from the source then will hardly be written any more, and may be copied
    while the conversion goes on. A converter that is done at once does not call it.
    """

    def convert(
        self,
        source: Source,
        endpoints: Sequence[Endpoint],
        options: ConversionOptions,
        run: Run,
        trimmed: Callable[[], None] = nobody_waits,
    ) -> ConvertedGuest: ...

    def inspect(
        self, source: Source, endpoints: Sequence[Endpoint], options: ConversionOptions, run: Run
    ) -> Inspection: ...

    def add_serial_console(
        self,
        guest: ConvertedGuest,
        endpoints: Sequence[Endpoint],
        options: ConversionOptions,
        run: Run,
    ) -> None:
        """Make a throw-away copy of a converted guest log its boot to the first serial port."""
        ...
