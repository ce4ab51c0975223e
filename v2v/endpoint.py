"""Where a disk can be read over NBD, and what the server promises.

URIs follow the NBD URI specification: nbd://HOST:PORT/EXPORT, nbd+unix:///EXPORT?socket=PATH.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, quote, urlencode

from v2v.types import MiB


def nbd_unix_uri(socket: Path, export: str = "") -> str:
    return f"nbd+unix:///{quote(export)}?{write_query({'socket': str(socket)})}"


def read_query(query: str) -> dict[str, str]:
    """The parameters of an NBD URI. Its + is a plus; only in web forms is it a space."""
    return dict(parse_qsl(query.replace("+", "%2B"), keep_blank_values=True))


def join_uri(parts: SplitResult) -> str:
    """As urlunsplit, which leaves out the // where there is no host."""
    query = f"?{parts.query}" if parts.query else ""
    return f"{parts.scheme}://{parts.netloc}{parts.path}{query}"


def write_query(parameters: Mapping[str, str]) -> str:
    return urlencode(parameters, safe="/", quote_via=quote)


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
