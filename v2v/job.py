"""What was asked of one job: the values a command line, a manifest entry or a library call become.

It is the journal's first entry, so `resume` knows it. Secrets are named by file, never held here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class ModuleChoice:
    """A mode and the words given for it: {"-os": "/srv", "-oo compressed": ""}."""

    mode: str
    options: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NicMap:
    """-n, -b and --mac: where the source's networks and bridges go. `source` None maps all."""

    kind: str  # what it selects: network, bridge or mac
    source: str | None
    target_kind: str  # network or bridge
    target: str


@dataclass(frozen=True, slots=True)
class StorageMap:
    """--storage: where a disk goes that `source` tells of: its number from 1, or its storage."""

    source: str
    target: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversionOptions:
    """What the user may ask of guest conversion."""

    convert: bool = True  # False: copy the disks as they are
    root: str = "ask"  # ask, single, first or a device
    keys: tuple[str, ...] = ()  # ID:file:PATH; a key's text is never held here
    block_bus: str = "virtio-blk"  # the preferred bus of the target's disks
    fstrim: bool = True
    appliance_network: bool = False  # let guest programs reach the network during conversion
    appliance_memory: int | None = None  # MiB
    appliance_cpus: int | None = None
    guest_agent: str = "auto"  # auto, no, or a folder of packages to install from
    initramfs: str = "auto"  # auto, or rebuild always
    keep_nic_names: bool = True
    trace: bool = False  # libguestfs trace in the job's log


class PageCache(StrEnum):
    """What happens to the host's page cache when a local file is written."""

    AUTO = "auto"  # drop it where the disk is large
    KEEP = "keep"
    DROP = "drop"


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyOptions:
    """What the user may ask of the copy. None: measured, or what the input and output prefer."""

    parallel: int = 1  # disks at a time
    connections: int | None = None  # per disk
    requests: int | None = None  # reads in flight per connection
    request_size: int | None = None  # bytes per write
    bandwidth: int | None = None  # bytes per second, over all disks
    verify: float = 0.0  # the part of the target that is read back and compared: 0 to 1
    overlap: bool = True  # copy what conversion will not touch while it runs
    page_cache: PageCache = PageCache.AUTO
    stall_timeout: float = 60.0  # seconds without a byte until a connection counts as lost


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One VM to migrate."""

    input: ModuleChoice
    output: ModuleChoice
    guests: tuple[str, ...]  # the positional words: disks, files or a VM's name
    name: str | None = None  # -on
    nic_maps: tuple[NicMap, ...] = ()
    storage_maps: tuple[StorageMap, ...] = ()
    conversion: ConversionOptions = ConversionOptions()
    boot_check: float | None = None  # seconds allowed, None for no check
    copy: CopyOptions = CopyOptions()
