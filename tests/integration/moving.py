"""One guest that is read in many ways: moved, and told of what came of it.

What boots once needs no second boot: another way of reading the same VM must give the same guest,
file by file, and the same hardware.
"""

from __future__ import annotations

import hashlib
import shutil
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from lxml import etree

import v2v
from tests.integration.guest_files import guest_files
from v2v.types import BootEvidence

BOOT_SECONDS = 600  # far more than a boot takes without KVM, so that only a guest that hangs fails
MAC = "00:50:56:0a:0b:0c"
# They hold times of the conversion.
DIFFERENT = {"var/log/dpkg.log", "var/cache/ldconfig/aux-cache"}

Words = tuple[str, str, dict[str, str], Path]  # input, guest, its options, the VM's folder


class Maker(Protocol):
    """Puts the image where an input finds it, in `folder`; servers end with the stack."""

    def __call__(self, image: Path, folder: Path, stack: ExitStack) -> Words: ...


@dataclass(frozen=True)
class Moved:
    boot: BootEvidence | None
    files: dict[str, str]  # as they were before the guest ran
    hardware: str
    left: list[str]  # in the target's folder


def move(make: Maker, image: Path, folder: Path, *, boots: bool) -> Moved:
    """Convert the guest to `folder`, which is removed; the source's files stay as they were."""
    source, target = folder / "source", folder / "target"
    source.mkdir()
    target.mkdir()
    with ExitStack() as stack:
        mode, guest, options, vm = make(image, source, stack)
        before = contents(vm)
        result = v2v.convert(
            guest,
            input=mode,
            input_options=options,
            storage=target,
            name="moved",
            boot_check=BOOT_SECONDS if boots else None,
            jobs=folder / "jobs",
        )
        assert contents(vm) == before
    left = sorted(path.name for path in target.iterdir())
    files = guest_files(target / "moved-sda")
    moved = Moved(result.boot, files, hardware(target / "moved.xml"), left)
    shutil.rmtree(folder)
    return moved


def sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def contents(folder: Path) -> dict[str, str]:
    """The hash of each file in a folder."""
    return {path.name: sha256(path) for path in folder.iterdir() if path.is_file()}


def hardware(path: Path) -> str:
    """A domain without what tells it from others: its id, and where it came from and lies."""
    domain = etree.parse(path).getroot()
    for name in ("uuid", "metadata"):
        for element in domain.findall(name):
            domain.remove(element)
    return etree.tostring(domain, encoding="unicode").replace(str(path.parent), "TARGET")


def check_booted(moved: Moved) -> None:
    """To its login on virtio, with its network."""
    assert moved.boot is not None
    assert moved.boot.reached == "login"
    assert (moved.boot.root_device or "").startswith("vda")
    assert moved.boot.nic_drivers.get("ens192") == "virtio_net"
    assert moved.left == ["moved-sda", "moved.xml"]


def check_same(moved: Moved, booted: Moved) -> None:
    assert moved.left == booted.left
    assert moved.hardware == booted.hardware
    names = {*moved.files, *booted.files}
    others = {name for name in names if moved.files.get(name) != booted.files.get(name)}
    assert others <= DIFFERENT, sorted(others)
