"""Input that cannot be worked with: one error that says what, where and what next, at once, and
nothing is changed. What only an appliance can tell is in tests/conversion."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.test_command import v2v
from v2v.types import MiB

EVIL = """# Disk DescriptorFile
version=1
CID=fffffffe
parentCID=ffffffff
createType="monolithicFlat"
RW 2048 FLAT "/etc/passwd" 0
"""


def refused(id: str, code: int, *words: object, jobs: Path, **env: str) -> str:
    """Run `v2v convert`, which must refuse; gives the lines of its error."""
    done = v2v("convert", *map(str, words), jobs=jobs, **env)
    assert done.returncode == code, done.stderr
    assert f"\n  id: {id}\n" in done.stderr
    assert "\n  hint: " in done.stderr
    assert done.stderr.count("error: ") == 1
    assert "Traceback" not in done.stderr
    assert "Starting the appliance" not in done.stdout  # refused before anything expensive
    return done.stderr


@pytest.fixture
def jobs(tmp_path: Path) -> Path:
    return tmp_path / "jobs"


@pytest.fixture
def target(tmp_path: Path) -> Path:
    (tmp_path / "target").mkdir()
    return tmp_path / "target"


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """A disk whose partition ends at 16 MiB."""
    path = tmp_path / "vm.img"
    entry = bytes([0, 0, 0, 0, 0x83, 0, 0, 0]) + (2048).to_bytes(4, "little")
    table = entry + (14 * MiB // 512).to_bytes(4, "little")
    path.write_bytes(bytes(446) + table + bytes(48) + b"\x55\xaa" + bytes(16 * MiB - 512))
    return path


def imaged(disk: Path, kind: str, offset: int, damage: bytes) -> bytes:
    """The disk as an image of a kind, with damage at an offset."""
    path = disk.with_suffix(f".{kind}")
    subprocess.run(["qemu-img", "convert", "-O", kind, disk, path], check=True)
    content = path.read_bytes()
    return content[:offset] + damage + content[offset + len(damage) :]


IMAGES: dict[str, tuple[str, Callable[[Path], bytes]]] = {
    "a text": ("not-a-disk-image", lambda disk: b"This is no disk.\n" * 99),
    "empty": ("image-empty", lambda disk: b""),
    "truncated": ("image-truncated", lambda disk: disk.read_bytes()[: 4 * MiB]),
    "qcow2 header": ("image-corrupt", lambda disk: imaged(disk, "qcow2", 20, b"\xff" * 4)),
    "vmdk header": ("image-corrupt", lambda disk: imaged(disk, "vmdk", 12, b"\xff" * 16)),
    "names /etc/passwd": ("image-names-other-file", lambda disk: EVIL.encode()),
}


@pytest.mark.parametrize(("id", "content"), IMAGES.values(), ids=IMAGES)
def test_image(
    id: str, content: Callable[[Path], bytes], disk: Path, jobs: Path, target: Path, need_tool
) -> None:
    need_tool("qemu-img")
    bad = disk.with_name("bad.img")
    bad.write_bytes(content(disk))
    told = refused(id, 4, bad, "-o", "local", "-os", target, jobs=jobs)
    assert str(bad) in told
    assert list(target.iterdir()) == []


def test_image_open_for_writing(disk: Path, jobs: Path) -> None:
    with disk.open("r+b"):
        refused("source-in-use", 4, disk, "-o", "null", jobs=jobs)


def test_target_exists(disk: Path, jobs: Path, target: Path) -> None:
    (target / "vm-sda").write_text("precious")
    refused("target-exists", 6, disk, "-o", "local", "-os", target, jobs=jobs)
    assert [path.read_text() for path in target.iterdir()] == ["precious"]


def test_target_missing(disk: Path, jobs: Path, target: Path) -> None:
    refused("target-folder", 6, disk, "-o", "local", "-os", target / "none", jobs=jobs)


def test_target_unwritable(disk: Path, jobs: Path) -> None:
    refused("target-unwritable", 6, disk, "-o", "local", "-os", "/proc", jobs=jobs)


def test_no_space_at_the_target(disk: Path, jobs: Path, small: Path) -> None:
    words = ("--no-convert", "-o", "local", "-os", small, "-oa", "preallocated")
    refused("target-space", 6, disk, *words, jobs=jobs)
    assert list(small.iterdir()) == []


def test_no_space_for_the_job(disk: Path, small: Path) -> None:
    refused("no-space-jobs", 3, disk, "-o", "null", jobs=small)


def test_missing_tool(disk: Path, jobs: Path, tmp_path: Path) -> None:
    told = refused("tool-missing", 3, disk, "-o", "null", jobs=jobs, PATH=str(tmp_path))
    assert "apt-get install nbdkit" in told


def test_a_wrong_choice_of_options_leaves_no_job(disk: Path, jobs: Path, target: Path) -> None:
    words = (disk, "-o", "local", "-os", target, "-oo", "compressed")
    told = refused("option-conflict", 2, *words, jobs=jobs)
    assert "v2v resume" not in told
    assert list(jobs.iterdir()) == []
    refused("boot-check-impossible", 2, disk, "-o", "null", "--boot-check", jobs=jobs)
    assert list(jobs.iterdir()) == []
