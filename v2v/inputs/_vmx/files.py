"""The files of a VM of VMware: reading its texts, finding its disks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from v2v.errors import SourceError
from v2v.image.names import is_of_another_host, last_part, moved_file, named_file
from v2v.inputs._metadata_file import read_metadata_file
from v2v.inputs._vmx.text import MAX_BYTES
from v2v.run import Run
from v2v.types import SourceDisk

COWD = b"COWD"
SHOWN = 200  # characters of a name in a message


def read_text(path: Path) -> bytes:
    return read_metadata_file(path, MAX_BYTES, hint="give the .vmx file of the VM")


def disk_file(vmx: Path, name: str, allowed: Sequence[Path], run: Run) -> Path:
    """The .vmdk that the VMX means. A path of the VMware host means the file beside the VMX."""
    if not name:
        raise SourceError(
            f"{vmx} has a disk whose file it does not name",
            id="vmx-disk-missing",
            hint="which of its drives is present and has no fileName? Name the file, or remove it",
        )
    if beside := moved_file(vmx, name):
        run.warn(
            f"{vmx.name} names {name[:SHOWN]}, a path of another host: {beside} is taken for it",
            id="vmx-disk-moved",
            hint="if that is another disk, put the right one there",
        )
        return beside
    if is_of_another_host(name):
        raise SourceError(
            f"{vmx} needs the disk {name[:SHOWN]}, which is not on this host",
            id="vmx-disk-missing",
            hint=f"copy {last_part(name)[:SHOWN]}, and what belongs to it, into {vmx.parent}; or "
            "mount the datastore at that path and allow it: -io allow-backing=FOLDER",
        )
    try:
        return named_file(vmx, name, allowed)
    except SourceError as exc:
        if exc.id != "image-file-missing":
            raise
        raise _missing(vmx, name) from exc


def _missing(vmx: Path, name: str) -> SourceError:
    """A descriptor is small, and has a plainer name than its data: it is what is forgotten."""
    data = [vmx.parent / f"{name.removesuffix('.vmdk')}{end}.vmdk" for end in ("-flat", "-delta")]
    there = next((file for file in data if file.exists()), None)
    hint = f"copy it from the VM's folder to {vmx.parent}"
    if there:
        hint = f"{there.name} is only the data: copy the small {name[:SHOWN]} too, a text file"
    return SourceError(
        f"{vmx} needs the disk {name[:SHOWN]}, which is not there", id="vmx-disk-missing", hint=hint
    )


def tell_if_slow(disk: SourceDisk, run: Run) -> None:
    """QEMU reads a delta block by block, and what is below it in blocks of the same size."""
    if any(_head(file) == COWD for file in disk.files):
        run.warn(
            f"{disk.location} has snapshots whose blocks have 512 bytes (vmfsSparse): reading it "
            "is slow, some 15 MiB/s",
            id="vmdk-slow",
            hint="where the disk is large, delete the VM's snapshots in VMware first",
        )


def tell_if_repeated(
    vmx: Path, nodes: Sequence[str], disks: Sequence[SourceDisk], run: Run
) -> None:
    """VMware does not start a VM that has one disk twice; one that was edited by hand may."""
    first: dict[str, str] = {}
    for node, disk in zip(nodes, disks, strict=True):
        if disk.location in first:
            run.warn(
                f"{vmx}: {first[disk.location]} and {node} are the same disk, {disk.location}: it "
                "is copied twice",
                id="disk-repeated",
                hint="remove one of the two drives from a copy of the file that lies beside it",
            )
        first.setdefault(disk.location, node)


def _head(file: str) -> bytes:
    with Path(file).open("rb") as opened:
        return opened.read(len(COWD))


def nvram_file(vmx: Path, name: str) -> str | None:
    """The file with the firmware's variables, where it is beside the VMX."""
    try:
        return str(named_file(vmx, name, ())) if name else None
    except SourceError:
        return None
