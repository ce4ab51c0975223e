"""The values that pass between the parts of v2v.

Plain frozen dataclasses, standard library only. They are written to the journal as JSON and read
back by `v2v.journal`, so every field has a type that JSON can carry. Sizes are bytes, times are
seconds, unless a name says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

KiB = 1024
MiB = 1024 * KiB
GiB = 1024 * MiB


class DiskFormat(StrEnum):
    """Image formats, named as QEMU's block drivers name them."""

    RAW = "raw"
    QCOW2 = "qcow2"
    VMDK = "vmdk"
    VPC = "vpc"  # the format of .vhd files
    VHDX = "vhdx"
    VDI = "vdi"

    @classmethod
    def _missing_(cls, value: object) -> DiskFormat | None:
        """The name by which everybody but QEMU knows it."""
        return cls.VPC if value == "vhd" else None


class Allocation(StrEnum):
    SPARSE = "sparse"
    PREALLOCATED = "preallocated"


class Firmware(StrEnum):
    BIOS = "bios"
    UEFI = "uefi"


class BlockBus(StrEnum):
    VIRTIO_BLK = "virtio-blk"
    VIRTIO_SCSI = "virtio-scsi"
    SATA = "sata"
    IDE = "ide"


class NetModel(StrEnum):
    VIRTIO = "virtio"
    E1000E = "e1000e"
    E1000 = "e1000"
    RTL8139 = "rtl8139"


class Machine(StrEnum):
    """QEMU machine families."""

    I440FX = "pc"
    Q35 = "q35"
    VIRT = "virt"


# What the source tells of the VM ------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Checksum:
    """What the source says the content of a disk amounts to; checked while the disk is read."""

    algorithm: str  # as hashlib names it
    digest: str  # lower-case hexadecimal
    enforced: bool = True  # a difference is an error, rather than a warning


@dataclass(frozen=True, slots=True)
class SourceDisk:
    """One disk of the source VM. Durable: no server runs behind it yet."""

    location: str  # absolute path or URI; of an archive, when the disk lies in one
    format: DiskFormat
    size: int | None = None  # virtual size; None when only a running server can tell
    controller: str | None = None  # scsi, nvme, sata, ide, virtio; None when unknown
    details: dict[str, str] = field(default_factory=dict)  # what else its input needs to serve it
    files: tuple[str, ...] = ()  # local files that hold it, backing files too: never to be replaced
    boot_order: int | None = None  # from 1; None when the source does not say
    serial: str | None = None  # as the guest sees it
    checksum: Checksum | None = None  # of the content that the guest sees
    storage: str | None = None  # where the source keeps it: a datastore, a pool
    target_storage: str | None = None  # where --storage puts it; None: where -os says


@dataclass(frozen=True, slots=True)
class Nic:
    """One network card. `name` is the interface name the guest's configuration uses, once known."""

    mac: str | None = None  # lower case, colons
    kind: str = "network"  # libvirt's interface types: network or bridge
    network: str = "default"
    model: str | None = None  # the source's model: vmxnet3, e1000, ...
    name: str | None = None
    slot: int | None = None  # VMware's PCI slot number: the 192 of ens192
    pci: str | None = None  # QEMU's PCI address, as Linux writes it: 0000:01:00.0
    connected: bool = True  # False: the cable is unplugged when the VM starts


@dataclass(frozen=True, slots=True)
class Removable:
    """A drive whose medium can be taken out; the target gets it empty."""

    kind: str  # cdrom or floppy
    controller: str | None = None  # as SourceDisk.controller


@dataclass(frozen=True, slots=True)
class Cpu:
    """What the guest sees of its processor. None: the source does not say."""

    model: str | None = None  # as libvirt names it
    vendor: str | None = None
    sockets: int | None = None
    cores: int | None = None  # per socket
    threads: int | None = None  # per core


@dataclass(frozen=True, slots=True)
class Source:
    """A VM as its input describes it. `nics` is None when the source tells of no NIC at all."""

    name: str
    input: str  # the input mode that read it
    disks: tuple[SourceDisk, ...]
    nics: tuple[Nic, ...] | None = None
    memory: int = 2 * GiB
    vcpus: int = 1
    firmware: Firmware | None = None  # None: find out from the disks
    secure_boot: bool = False
    tpm: bool = False
    genid: str | None = None
    hypervisor: str | None = None
    uuid: str | None = None
    description: str | None = None  # what the VM's owner wrote about it
    osinfo: str | None = None  # what the source says is installed: libosinfo's URI, VMware's name
    machine: str | None = None  # libvirt's or QEMU's name: q35, pc-i440fx-7.2
    cpu: Cpu = Cpu()
    features: tuple[str, ...] = ()  # of the machine, as libvirt names them: acpi, apic, pae
    rtc_utc: bool | None = None  # the clock runs in UTC, rather than local time
    nvram: str | None = None  # the file with the UEFI variables
    display: str | None = None  # vnc, spice, window, ...
    video: str | None = None  # libvirt's name of the graphics card
    sound: str | None = None  # libvirt's name of the sound card
    vsock: bool = False
    removables: tuple[Removable, ...] = ()
    snapshots: tuple[str, ...] = ()  # names of those that the VM has, oldest first


# What an input lists, and what it changes where it reads ------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestSummary:
    """One VM of a host, as `v2v list` shows it. Sizes are bytes; None: nobody told."""

    name: str
    id: str  # by which the input finds exactly this VM: a moref, a UUID, a path
    where: str = ""  # inventory path, or the datastore's folder
    power: str = "unknown"  # off, on, suspended, unknown
    disks: int = 0
    provisioned: int | None = None  # what its disks hold at most
    used: int | None = None  # what they take at the source
    firmware: Firmware | None = None
    cbt: bool | None = None  # changed block tracking is on
    snapshots: tuple[str, ...] = ()
    os: str | None = None  # what the source says is installed
    memory: int | None = None
    vcpus: int | None = None
    findings: tuple[Finding, ...] = ()  # what stands in the way: blockers, and warnings

    @property
    def convertible(self) -> bool:
        return not any(one.severity == "blocker" for one in self.findings)


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceChange:
    """Something that is changed at the source because the user asked for it.

    Written to the journal before it is made, so that it can be undone whatever happens.
    """

    kind: str  # snapshot, shut-down, power-off
    what: str  # for people: "snapshot v2v-20260301-101500 of web"
    target: str  # what the input needs to find the VM again: a moref, a name
    uuid: str = ""  # of the VM, where `target` may be another's one day
    name: str = ""  # of what was created: the snapshot's
    temporary: bool = True  # undone once the copy is finished; else only by `v2v undo`


# What conversion found and did --------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class GuestOS:
    """The operating system found on the disks. Strings come from the guest: treat as hostile."""

    type: str  # linux, windows, unknown
    distro: str  # the os-release ID: debian, ubuntu, ...
    version: str  # "12", "22.04"
    product: str  # "Debian GNU/Linux 12 (bookworm)"
    arch: str  # x86_64, aarch64, ...
    hostname: str = ""
    osinfo: str | None = None  # libosinfo URI


@dataclass(frozen=True, slots=True)
class GuestCaps:
    """The virtual devices that the converted guest has drivers for."""

    block_bus: BlockBus
    net_model: NetModel
    machine: Machine
    arch: str = "x86_64"
    rng: bool = True
    balloon: bool = True
    pvpanic: bool = True
    vsock: bool = True
    virtio_1_0: bool = True
    rtc_utc: bool = True


@dataclass(frozen=True, slots=True)
class Change:
    """One thing conversion changed in the guest, or would change."""

    what: str  # "Remapped /dev/sda1 to UUID=... in /etc/fstab"
    why: str
    where: str | None = None  # the file or package concerned


@dataclass(frozen=True, slots=True)
class Finding:
    """Something the user should know; `severity` is info, warning or blocker."""

    severity: str
    id: str  # stable, like an error id
    text: str
    hint: str | None = None


@dataclass(frozen=True, slots=True)
class Timing:
    name: str
    seconds: float
    start: float | None = None  # seconds after the job's run began, where known
    title: str | None = None  # what people call it
    depth: int = 0  # how many longer steps it is part of


@dataclass(frozen=True, slots=True)
class ConvertedGuest:
    """The outcome of a conversion."""

    os: GuestOS
    firmware: Firmware
    root: str  # the root filesystem as the appliance names it: /dev/sda1, /dev/vg/root
    boot_disk: int  # index into Source.disks
    caps: GuestCaps
    nics: tuple[Nic, ...]
    kernel: str | None = None  # version of the kernel that will boot
    serial_console: bool = False  # the kernel already logs to a serial console, verbosely
    changes: tuple[Change, ...] = ()
    findings: tuple[Finding, ...] = ()
    timings: tuple[Timing, ...] = ()


# What the target holds ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TargetDisk:
    """One disk at the target, created and journaled before it is written."""

    location: str  # where it will be when all is done: absolute path or URI
    working: str  # where it is until then
    format: DiskFormat
    size: int  # virtual size


@dataclass(frozen=True, slots=True)
class GuestRef:
    """A finished guest at the target."""

    name: str
    disks: tuple[TargetDisk, ...] = ()
    metadata: str | None = None  # path or id of what describes the VM
    start_hint: str | None = None  # the command that starts it


@dataclass(frozen=True, slots=True)
class CopyResult:
    """What copying one disk took. All sizes are bytes.

    `data`, `zero` and `resumed` make up the disk's size, but for what was copied more than once.
    """

    disk: int
    size: int  # virtual size
    data: int  # read from the source, by this run of the job
    zero: int  # known to be zero, never read
    seconds: float
    found_zero: int = 0  # of `data`: turned out to be zeroes, and was not written as data
    by_kernel: int = 0  # of `data`: moved or shared by the kernel, without passing through v2v
    resumed: int = 0  # was on the target already, from an earlier run of the job
    retries: int = 0  # reads and connections that had to be repeated
    connections: int = 1  # to the source
    read_size: int = 0  # the largest read
    write_size: int = 0  # the largest write
    checksum: str | None = None  # of the disk's content, as `v2v checksum` gives it
    verified: float = 0.0  # the part of the target that was read back and compared
    notes: tuple[str, ...] = ()  # faster ways that were not possible, and why


BOOT_MILESTONES = ("nothing", "firmware", "bootloader", "kernel", "root", "userspace", "login")


@dataclass(frozen=True, slots=True)
class BootEvidence:
    """What the boot check saw. Strings come from the guest's console: treat as hostile."""

    passed: bool
    reached: str  # the furthest of BOOT_MILESTONES
    seconds: float  # until the furthest milestone
    accelerator: str  # kvm or tcg
    root_device: str | None = None  # the block device the root was mounted from: vda1
    block_driver: str | None = None
    nic_drivers: dict[str, str] = field(default_factory=dict)  # interface name: driver
    agent: str | None = None  # the guest agent's version, None if it did not answer
    instrumented: bool = False  # the throw-away copy was made to log to the serial console
    screenshot: str | None = None  # file names in the job's folder
    console_log: str | None = None
    trouble: str | None = None  # the line that tells why it went wrong: a panic, a lost root
