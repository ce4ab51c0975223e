"""What SourceDisk.details may say of how a disk is served, whichever input wrote it."""

from __future__ import annotations

from dataclasses import dataclass

from v2v import input as contract
from v2v.image.magic import SECTOR
from v2v.types import DiskFormat, SourceDisk

PACKED = "packed"  # gzip or xz: the image is compressed
MODIFIED = contract.MODIFIED  # without it, a job that is resumed copies the disk again
OFFSET = "offset"  # bytes, decimal: the image is only a part of what `location` names, from here
LENGTH = "length"  # bytes, decimal: how long that part is
MEMBER = "member"  # what the archive calls that part, for messages

# An NBD server that does not promise to take several clients at a time. The overlay and the copy
# both read the source; qemu-nbd lets a second client wait for the first.
ONE_CONNECTION = "one-connection"

# Nobody has looked at the content yet, which takes a running server: "guessed" if nobody told the
# format, "told" if somebody did, "certain" if what begins as a packed file is none either.
UNSEEN = "unseen"

# Files for ssh://: the hosts whose keys are known, and the key to log in with.
KNOWN_HOSTS = "known-hosts"
IDENTITY = "identity"


@dataclass(frozen=True, slots=True)
class Slice:
    """A part of a file or an address, in bytes. `member` is its name, for messages."""

    offset: int
    length: int
    member: str = ""

    def details(self) -> dict[str, str]:
        told = {MEMBER: self.member} if self.member else {}
        return {OFFSET: str(self.offset), LENGTH: str(self.length), **told}

    def name(self, location: str) -> str:
        """How messages call it."""
        return f"{self.member or f'bytes from {self.offset}'} in {location}"


def slice_of(disk: SourceDisk) -> Slice | None:
    """The part of `location` that holds the image; None if all of it does."""
    if OFFSET not in disk.details:
        return None
    return Slice(int(disk.details[OFFSET]), int(disk.details[LENGTH]), disk.details.get(MEMBER, ""))


def shown(disk: SourceDisk) -> str:
    """How messages call the image."""
    part = slice_of(disk)
    return part.name(disk.location) if part else disk.location


def is_uri(word: str) -> bool:
    return "://" in word


def is_plain(disk: SourceDisk) -> bool:
    """The bytes at `location` are those of the disk: raw, not compressed, and all of them."""
    whole = PACKED not in disk.details and OFFSET not in disk.details
    return disk.format == DiskFormat.RAW and whole


def is_padded(disk: SourceDisk) -> bool:
    """A raw disk that does not end with a whole sector, or may not."""
    return disk.format == DiskFormat.RAW and (disk.size is None or disk.size % SECTOR != 0)
