"""qemu-nbd: serves image formats that nbdkit does not read. The format is always forced."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from v2v import process
from v2v.run import Run
from v2v.types import DiskFormat


def image_options(path: Path, format: DiskFormat) -> dict[str, str]:
    """The --image-opts keys that open a local image as `format`, whatever it looks like."""
    driver = "host_device" if path.is_block_device() else "file"
    return {
        "driver": str(format),
        "file.driver": driver,
        "file.filename": str(path.absolute()),
    }


def join_options(image: Mapping[str, str]) -> str:
    """One --image-opts word; a comma in a value is written twice."""
    return ",".join(f"{key}={value.replace(',', ',,')}" for key, value in image.items())


@contextmanager
def serve(
    image: Mapping[str, str],
    *,
    run: Run,
    name: str,
    read_only: bool = True,
    allocation_depth: bool = False,
    discard: bool = False,
    cache: str = "writeback",
    shared: int = 0,
    secrets: Mapping[str, Path] | None = None,
) -> Iterator[Path]:
    """Serve one image until the block ends; gives the Unix socket.

    `image` holds --image-opts keys: {"driver": "qcow2", "file.driver": "file", ...}. `discard`
    makes trims and written zeroes give space back. `shared` is how many clients may connect at
    once, 0 for no limit. `secrets` are files with what `image` names by these ids. The server's
    output is in log/NAME.log.
    """
    argv = ["qemu-nbd", "--persistent", f"--shared={shared}", f"--cache={cache}"]
    if read_only:
        argv.append("--read-only")
    if allocation_depth:
        argv.append("--allocation-depth")
    if discard:
        argv += ["--discard=unmap", "--detect-zeroes=unmap"]
    for id, file in (secrets or {}).items():
        argv += ["--object", "secret," + join_options({"id": id, "file": str(file)})]
    argv += ["--image-opts", join_options(image)]
    with process.nbd_server(argv, "--pid-file", "--socket", run=run, name=name) as socket:
        yield socket
