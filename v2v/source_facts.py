"""What a source tells of its VM, in words: for --print-source and for the report."""

from __future__ import annotations

from collections.abc import Sequence

from v2v.texts import size_text
from v2v.types import Checksum, Nic, Removable, Source, SourceDisk

MAX_DESCRIPTION = 70  # characters of it that are shown


def source_facts(source: Source) -> Sequence[tuple[str, object]]:
    """Label and value of what is said of the whole VM, in the order in which it is shown.

    Values that are empty or None were not told. All are strangers' text: clean what is shown.
    """
    return [
        ("name", source.name),
        ("description", _first_line(source.description or "")),
        ("uuid", source.uuid),
        ("hypervisor", source.hypervisor),
        ("system", source.osinfo),
        ("memory", size_text(source.memory)),
        ("vCPUs", _vcpus_text(source)),
        ("CPU", " ".join(word for word in (source.cpu.vendor, source.cpu.model) if word)),
        ("machine", source.machine),
        ("firmware", source.firmware or "told from the disks"),
        ("secure boot", "yes" if source.secure_boot else None),
        ("TPM", "yes" if source.tpm else None),
        ("NVRAM", source.nvram),
        ("clock", {True: "UTC", False: "local time", None: None}[source.rtc_utc]),
        ("features", ", ".join(source.features)),
        ("genid", source.genid),
        ("display", source.display),
        ("video", source.video),
        ("sound", source.sound),
        ("vsock", "yes" if source.vsock else None),
        ("snapshots", ", ".join(source.snapshots)),
    ]


# Of facts on the page; the others' are their labels with a capital.
TITLES = {"uuid": "UUID", "vCPUs": "CPUs", "genid": "Generation id"}


def told(source: Source) -> list[tuple[str, str]]:
    """Title and text of the VM's facts and devices; name and disks have their places elsewhere."""
    facts = [(label, str(value)) for label, value in source_facts(source)[1:] if value]
    facts += [("removable drive", drive_text(drive)) for drive in source.removables]
    facts += [("NIC", nic_text(nic)) for nic in source.nics or ()]
    return [(TITLES.get(label, label[0].upper() + label[1:]), value) for label, value in facts]


def _first_line(text: str) -> str:
    """The first line of a text, cut; an ellipsis tells that there is more."""
    text = text.strip()
    first = text.split("\n", 1)[0].rstrip()[:MAX_DESCRIPTION]
    return f"{first} ..." if first != text else first


def _vcpus_text(source: Source) -> str:
    """8 (2 sockets, 4 cores, 1 thread); cores are of a socket, threads of a core."""
    cpu = source.cpu
    parts = ((cpu.sockets, "socket"), (cpu.cores, "core"), (cpu.threads, "thread"))
    topology = ", ".join(f"{n} {word}{'s' if n != 1 else ''}" for n, word in parts if n)
    return f"{source.vcpus} ({topology})" if topology else str(source.vcpus)


def disk_text(disk: SourceDisk) -> str:
    size = size_text(disk.size) if disk.size is not None else None
    return disk_place(disk) + _bracketed(disk.format, size, *disk_facts(disk))


def disk_place(disk: SourceDisk) -> str:
    """Where a disk lies; in an archive, its member too."""
    member = disk.details.get("member")
    return f"{disk.location}, {member}" if member else disk.location


def disk_facts(disk: SourceDisk) -> list[str]:
    """What the source says of a disk, beyond its format and size."""
    facts = (
        f"on {disk.controller}" if disk.controller else None,
        f"storage {disk.storage}" if disk.storage else None,
        f"goes to {disk.target_storage}" if disk.target_storage else None,
        f"boot order {disk.boot_order}" if disk.boot_order is not None else None,
        f"serial {disk.serial}" if disk.serial else None,
        _checksum_text(disk.checksum) if disk.checksum else None,
    )
    return [fact for fact in facts if fact]


def _checksum_text(checksum: Checksum) -> str:
    doubt = "" if checksum.enforced else ", not enforced"
    return f"{checksum.algorithm} {checksum.digest}{doubt}"


def drive_text(drive: Removable) -> str:
    return drive.kind + _bracketed(f"on {drive.controller}" if drive.controller else None)


def nic_text(nic: Nic) -> str:
    return f"{nic.mac or 'no MAC'} on {nic.kind} {nic.network}" + _bracketed(
        nic.model,
        f"slot {nic.slot}" if nic.slot is not None else None,
        None if nic.connected else "unplugged",
    )


def _bracketed(*facts: str | None) -> str:
    """What is known, in brackets behind what it is said of; nothing if nothing is known."""
    known = ", ".join(fact for fact in facts if fact)
    return f" ({known})" if known else ""
