"""Which files an image, or the description of a VM, may name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from v2v.errors import SourceError

_DRIVE = re.compile(r"[A-Za-z]:[\\/]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def named_file(image: Path, name: str, allowed: Sequence[Path]) -> Path:
    """The file that `image` means by `name`, if it may mean it. Reads no content.

    It may in its own folder and below; `allowed` are files and folders elsewhere, resolved.
    """
    if ":" in name.split("/", maxsplit=1)[0] or "\\" in name or _CONTROL.search(name):
        raise refused(str(image), name, "it is not a plain file name")
    try:
        file = (image.parent / name).resolve()
        there = file.exists()
    except (OSError, RuntimeError) as exc:  # a very long name, a loop of links
        raise refused(str(image), name, "it is not a plain file name") from exc
    inside = file.is_relative_to(image.parent.resolve())
    if not inside and not any(file == one or file.is_relative_to(one) for one in allowed):
        raise refused(str(image), name, "it lies outside of the image's folder")
    if not there:
        raise SourceError(
            f"{image} needs the file {name}, which is not there",
            id="image-file-missing",
            hint=f"put it at {file}",
        )
    if not (file.is_file() or file.is_block_device()):
        raise refused(str(image), name, "it is not a regular file")
    return file


def moved_file(image: Path, name: str) -> Path | None:
    """The file in the image's folder that `name`, a path of another host, was the path of.

    None when `name` is no such path, is the path of a file of this host, or no file is there.
    """
    last = last_part(name) if is_of_another_host(name) else ""
    if not last or last in (".", "..") or _CONTROL.search(last):
        return None
    try:
        beside = (image.parent / last).resolve()
        found = beside.is_file() and beside.is_relative_to(image.parent.resolve())
        return beside if found else None
    except (OSError, RuntimeError):
        return None


def is_of_another_host(name: str) -> bool:
    """A path of Windows, or an absolute one, as of VMware's ESXi, where nothing is on this host."""
    if not name.startswith("/"):
        return name.startswith("\\\\") or bool(_DRIVE.match(name))
    try:
        return not Path(name).exists()
    except (OSError, ValueError):  # too long, not for us to see
        return True


def last_part(name: str) -> str:
    """The name of the file that a path of whatever host leads to."""
    return re.split(r"/" if name.startswith("/") else r"[/\\]", name)[-1]


def refused(image: str, name: str, why: str) -> SourceError:
    return SourceError(
        f"{image} refers to {name!r}: refused, because {why}",
        id="image-names-other-file",
        hint="if you trust this image and mean that file: -io allow-backing=PATH, "
        "a file or a folder; several are separated by colons",
    )
