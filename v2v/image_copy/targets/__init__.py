"""Where one disk image is copied to: a file, a block device, an NBD export, or nowhere."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

from v2v.address import NBD_SCHEMES as SCHEMES
from v2v.address import scheme_of
from v2v.errors import TargetError, UsageError
from v2v.image_copy.targets._base import Shape, Target
from v2v.image_copy.targets.file import FileTarget
from v2v.image_copy.targets.null import NullTarget
from v2v.image_copy.targets.place import PlaceTarget
from v2v.options import did_you_mean
from v2v.targets import BlockDevice, NbdExport, Opened, absolute_uri

__all__ = ["NULL", "FileFormat", "Opened", "Shape", "Target", "anchored", "anchored_uri", "find"]

NULL = "null:"
QEMU_ADDRESS = "nbd:"
DEVICES = Path("/dev")
FILES_IN_DEV = Path("/dev/shm")  # noqa: S108  a filesystem of its own


class FileFormat(StrEnum):
    RAW = "raw"
    QCOW2 = "qcow2"


def anchored_uri(uri: str) -> str:
    """An address that does not depend on the current folder."""
    return absolute_uri(uri) if scheme_of(uri) in SCHEMES else uri


def anchored(word: str) -> str:
    """The target as it is known from any folder. Refuses what is no target at all."""
    if word == NULL:
        return word
    if word == "-":
        raise UsageError(
            "the target cannot be stdout: the parts of a disk are written in any order",
            id="usage",
            hint="name a file, a block device, an NBD address, or null:",
        )
    scheme, separator, _ = word.partition("://")
    if separator:
        if scheme.lower() not in SCHEMES:
            raise UsageError(
                f"{word}: cannot write to {scheme}://",
                id="uri-scheme",
                hint=did_you_mean(scheme, SCHEMES)
                or f"targets are files, block devices, null:, and {', '.join(SCHEMES)}",
            )
        return absolute_uri(word)
    if word.startswith(QEMU_ADDRESS):
        raise UsageError(
            f"{word}: QEMU's old form of an NBD address",
            id="uri-scheme",
            hint=f"nbd://HOST:PORT/EXPORT, nbd+unix:///EXPORT?socket=PATH, or for a file ./{word}",
        )
    return str(_anchored_path(word))


def _anchored_path(word: str) -> Path:
    path = Path(word).absolute()
    try:
        if path.is_block_device():
            return path.resolve()
        if word.endswith("/") and not path.is_dir():
            raise TargetError(
                f"{path}/: no such folder", id="target-folder", hint="name the file to write"
            )
        return path.parent.resolve() / path.name
    except (OSError, RuntimeError) as exc:  # the latter for links in a circle
        why = exc.strerror if isinstance(exc, OSError) else exc
        raise TargetError(
            f"{path}: {why}", id="target-unwritable", hint="choose another place or name"
        ) from exc


def find(word: str, shape: Shape, job_id: str) -> Target:
    """The target that an anchored word means; nothing is opened yet."""
    if word == NULL:
        return NullTarget(shape)
    if scheme_of(word) in SCHEMES:
        return PlaceTarget(NbdExport(word), shape)
    path = Path(word)
    if path.is_block_device():
        return PlaceTarget(BlockDevice(path), shape)
    if path.is_relative_to(DEVICES) and not path.is_relative_to(FILES_IN_DEV):
        raise TargetError(
            f"{path}: {'not a block device' if path.exists() else 'no such device'}",
            id="target-device",
            hint="`lsblk` lists the block devices; null: throws the data away",
        )
    return FileTarget(path, shape, job_id)
