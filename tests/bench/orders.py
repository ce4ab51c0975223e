"""What the process that copies is told, as JSON on its command line."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Disk:
    """`source` is the socket of an NBD server. `target`: "null", nbd:SOCKET or a file."""

    source: str
    target: str
    file: str | None = None  # the source as a local file, for the kernel to copy
    request_size: int | None = None  # the sink's


@dataclass(frozen=True)
class Order:
    """What to copy, and how."""

    disks: tuple[Disk, ...]
    at_once: bool = True
    options: dict[str, Any] = field(default_factory=dict)

    def dump(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def load(cls, text: str) -> Order:
        found = json.loads(text)
        return cls(**{**found, "disks": tuple(Disk(**disk) for disk in found["disks"])})
