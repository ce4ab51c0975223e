"""Disks at ssh://, iscsi:// and rbd://: what they hold is looked at when they are served.

Nothing but a server can tell, and none runs while a source is read. So the format is what somebody
tells, else raw; and what then turns out to be something else is refused.
"""

from __future__ import annotations

from pathlib import Path

from v2v import nbd_client
from v2v.errors import SourceError
from v2v.image import check_raw
from v2v.image.magic import HEAD, image_format, packed_with
from v2v.inputs._details import IDENTITY, KNOWN_HOSTS, UNSEEN, Slice, shown
from v2v.inputs._serve import addresses, qemu_bytes
from v2v.run import Run
from v2v.types import DiskFormat, SourceDisk

SCHEMES = (addresses.SSH, *qemu_bytes.SCHEMES)


def unseen_disk(
    uri: str,
    format: DiskFormat | None,
    *,
    unpack: bool = True,
    known_hosts: Path | None = None,
    identity: Path | None = None,
    part: Slice | None = None,
) -> SourceDisk:
    """The disk, as far as its address tells. Connects to nothing.

    `unpack`: `format` may be the one inside of a packed file, which is refused.
    """
    address = addresses.parse(uri)
    if address.scheme in qemu_bytes.SCHEMES:
        qemu_bytes.driver_options(uri, secret=False)  # refuses what is no such address
    told = "told" if unpack else "certain"
    details = {UNSEEN: "guessed" if format is None else told}
    if part:
        details |= part.details()
    if address.scheme == addresses.SSH:
        files = {KNOWN_HOSTS: known_hosts, IDENTITY: identity}
        details |= {key: str(file) for key, file in files.items() if file}
    return SourceDisk(uri, format or DiskFormat.RAW, None, details=details)


def check_seen(disk: SourceDisk, socket: Path, run: Run) -> None:
    """Look at a raw disk that is served now; other formats have their headers checked anyway."""
    endpoint = nbd_client.describe(socket, cancel=run.cancel)
    with nbd_client.ExportReader(endpoint, shown(disk)) as reader:
        if reader.size == 0:
            raise SourceError(
                f"{reader.name} is empty", id="image-empty", hint="is it the right file?"
            )
        head = reader.read(0, HEAD)
        guessed = disk.details[UNSEEN] == "guessed"
        certain = disk.details[UNSEEN] == "certain"
        if not certain and (packed := packed_with(head)):
            raise _holds(disk, f"a {packed} file", "unpack it where it is, or copy it here first")
        if guessed and (inside := image_format(head, b"")):
            raise _holds(
                disk,
                f"a {inside} image, not the disk itself",
                f"-if {inside} reads the image; -if raw takes it as it is",
            )
        if guessed:
            check_raw(reader, head, strict=False)


def _holds(disk: SourceDisk, what: str, hint: str) -> SourceError:
    return SourceError(f"{shown(disk)} holds {what}", id="source-holds-image", hint=hint)
