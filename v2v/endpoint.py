"""Where a disk can be read over NBD, and what the server promises.

URIs follow the NBD URI specification: nbd://HOST:PORT/EXPORT, nbd+unix:///EXPORT?socket=PATH.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from v2v.address import Address
from v2v.types import MiB


def nbd_unix_uri(socket: Path, export: str = "") -> str:
    return Address("nbd+unix", path=f"/{export}", query={"socket": str(socket)}).write()


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One disk served over NBD. `socket` is set when the server listens on a Unix socket.

    `file` is a local raw file or block device that holds exactly the bytes of the disk: those who
    only read may read it directly. `request_size` is how many bytes per read its input prefers.
    """

    uri: str
    size: int  # virtual size in bytes
    socket: Path | None = None
    export: str = ""
    minimum_block: int = 1
    preferred_block: int = 4096
    maximum_block: int = 32 * MiB
    multi_conn: bool = False
    read_only: bool = True
    file: Path | None = None
    request_size: int | None = None
