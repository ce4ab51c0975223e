"""qemu-img: creates images. It is never asked to guess what a file is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from v2v import process
from v2v.errors import TargetError
from v2v.qemu_nbd import join_options
from v2v.types import DiskFormat


def create(
    path: Path,
    format: DiskFormat,
    size: int,
    *,
    options: Mapping[str, str] | None = None,
    backing: tuple[Path, DiskFormat] | None = None,
) -> None:
    """Create an image of `size` bytes; never overwrites one.

    `options` are the format's own: {"preallocation": "metadata"}.
    """
    path = path.absolute()  # a relative name with a colon would be taken for a protocol
    _reserve(path)
    argv = ["qemu-img", "create", "-q", "-f", str(format)]
    if options:
        argv += ["-o", join_options(options)]
    if backing:
        argv += ["-F", str(backing[1]), "-b", str(backing[0].absolute())]
    try:
        process.run_tool([*argv, str(path), str(size)])
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def virtual_size(path: Path, format: DiskFormat) -> int:
    """The size in bytes of the disk in an image that v2v itself made."""
    argv = ["qemu-img", "info", "--output=json", "-f", str(format), str(path.absolute())]
    return int(json.loads(process.run_tool(argv, timeout=60).stdout)["virtual-size"])


def shrink(path: Path, format: DiskFormat, size: int) -> None:
    """Cut the disk in an image to `size` bytes; what lies beyond is lost."""
    argv = ["qemu-img", "resize", "-q", "--shrink", "-f", str(format), str(path.absolute())]
    process.run_tool([*argv, str(size)])


def _reserve(path: Path) -> None:
    try:
        path.open("xb").close()
    except FileExistsError:
        raise TargetError(
            f"{path} exists already", id="image-exists", hint="v2v overwrites no image"
        ) from None
    except OSError as exc:
        raise TargetError(f"cannot create {path}: {exc.strerror}", id="image-create") from exc
