"""qemu-nbd: serves image formats that nbdkit does not read. The format is always forced."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

from v2v import process
from v2v.run import Run
from v2v.types import DiskFormat

# How QEMU opens an image: its block drivers' options, nested ones with dots in their names. None is
# JSON's null: {"backing": None} opens no backing file, whatever the image says.
ImageOptions: TypeAlias = Mapping[str, str | None]


def image_options(path: Path, format: DiskFormat) -> dict[str, str]:
    """A local image as `format`, whatever it looks like."""
    driver = "host_device" if path.is_block_device() else "file"
    return {
        "driver": str(format),
        "file.driver": driver,
        "file.filename": str(path.absolute()),
    }


def image_word(image: ImageOptions) -> str:
    """The options as a file name, which QEMU's programs take where they take one."""
    return f"json:{json.dumps(dict(image))}"


def join_options(options: Mapping[str, str]) -> str:
    """One word for an option such as --object; a comma in a value is written twice."""
    return ",".join(f"{key}={value.replace(',', ',,')}" for key, value in options.items())


@contextmanager
def serve(
    image: ImageOptions,
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

    `image`: {"driver": "qcow2", "file.driver": "file", ...}. `discard` makes trims and written
    zeroes give space back. `shared` is how many clients may connect at once, 0 for no limit.
    `secrets` are files with what `image` names by these ids. The server's output is in
    log/NAME.log.
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
    argv.append(image_word(image))
    with process.nbd_server(argv, "--pid-file", "--socket", run=run, name=name) as socket:
        yield socket
