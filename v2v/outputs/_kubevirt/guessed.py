"""Raw disks that CDI would take for something else, and what to do about them.

CDI tells formats from the first bytes of an image (its pkg/image/filefmt.go), and a guest chooses
those of its disks. A raw disk that begins as a qcow2 image does would be converted to something
else than it holds, and might name a file of CDI's own as its backing file. What is in a qcow2 image
is never guessed.
"""

from __future__ import annotations

from pathlib import Path

from v2v import process
from v2v.errors import TargetError
from v2v.outputs._files import working_path
from v2v.process import ToolError
from v2v.run import Run

HEAD = 512  # bytes that CDI looks at
SECONDS = 24 * 3600.0  # that a conversion here may take
MAGIC = (
    (0, b"\x1f\x8b", "gzip"),
    (0, b"\xfd7zXZ\0", "xz"),
    (0, b"\x28\xb5\x2f\xfd", "zstd"),
    (0x101, b"ustar", "tar"),
    (0, b"QFI\xfb", "qcow2"),
    (0, b"KDMV", "VMDK"),
    (0x40, b"\x7f\x10\xda\xbe", "VDI"),
    (0, b"conectix", "VHD"),
    (0, b"vhdxfile", "VHDX"),
)


def guessed_format(path: Path) -> str | None:
    """What CDI would take a raw image for, if not for a disk."""
    with path.open("rb") as file:
        head = file.read(HEAD)
    return next((name for at, magic, name in MAGIC if head.startswith(magic, at)), None)


def as_qcow2(path: Path, index: int, run: Run) -> Path:
    """The raw image at `path` as a qcow2 image beside it, which goes when the others do."""
    made = working_path(path.parent / f"qcow2-{index}", run.job_id)
    argv = ["qemu-img", "convert", "-q", "-f", "raw", "-O", "qcow2"]
    try:
        process.run_tool(
            [*argv, str(path.absolute()), str(made.absolute())], timeout=SECONDS, cancel=run.cancel
        )
    except ToolError as exc:
        raise TargetError(
            f"{path}: disk {index + 1} begins as no disk does, and cannot be sent in a qcow2 "
            f"image: {exc.message}",
            id="target-write",
            hint=f"make room there, and continue with `v2v resume {run.job_id}`",
        ) from exc
    return made
