"""Opening encrypted devices with the keys of --key.

A key is named by a file and read when it is used; libguestfs keeps keys out of its traces.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from v2v.errors import HostError, UsageError
from v2v.types import KiB

if TYPE_CHECKING:
    from conversion.volumes import Filesystem

log = logging.getLogger(__name__)

MAX_KEY = 8 * KiB  # cryptsetup's own limit for passphrases is 512 bytes
ALL = "all"


@dataclass(frozen=True, slots=True)
class Key:
    """Opens `device`: a device name (/dev/sda5), a UUID or `all`."""

    device: str
    path: Path

    def fits(self, fs: Filesystem) -> bool:
        return self.device == ALL or self.device.casefold() in (fs.device, fs.uuid.casefold())

    def read(self) -> str:
        """The first line of the key's file, as --key has it."""
        try:
            with self.path.open("rb") as file:
                line = file.read(MAX_KEY).partition(b"\n")[0]
        except OSError as exc:
            raise HostError(
                f"--key {self.device}:file:{self.path}: {exc.strerror}", id="key-unreadable"
            ) from exc
        return line.decode("utf-8", "surrogateescape")


def parse_keys(words: Sequence[str]) -> tuple[Key, ...]:
    """Keys of the form ID:file:PATH."""
    return tuple(_parse(word) for word in words)


def _parse(word: str) -> Key:
    device, _, rest = word.partition(":")
    kind, _, path = rest.partition(":")
    if kind != "file" or not device or not path:
        raise UsageError(
            f"--key {device}:{kind}:... : not of the form ID:file:PATH",
            id="key-form",
            hint="write the passphrase to a file of mode 600 and name it: --key all:file:PATH",
        )
    return Key(device, Path(path))


def open_all(
    g: Any, encrypted: Sequence[Filesystem], keys: Sequence[Key], first: int = 0
) -> tuple[dict[str, Filesystem], list[Filesystem]]:
    """Open what the keys open: {new device: container}, and what stays locked."""
    opened: dict[str, Filesystem] = {}
    locked: list[Filesystem] = []
    for fs in encrypted:
        name = f"v2v-{first + len(opened)}"
        if any(_opens(g, fs, key, name) for key in keys if key.fits(fs)):
            opened[f"/dev/mapper/{name}"] = fs
        else:
            locked.append(fs)
    return opened, locked


def _opens(g: Any, fs: Filesystem, key: Key, name: str) -> bool:
    try:
        g.cryptsetup_open(fs.device, key.read(), name)
    except RuntimeError as exc:  # a wrong key
        log.debug("%s: the key for %s does not open it: %s", fs.device, key.device, exc)
        return False
    return True
