"""Snapshots of ESXi, which QEMU reads block by block: our own reader is many times faster.

tests/bench/vmdk.py has the figures.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from v2v import nbdkit
from v2v.errors import HostError
from v2v.inputs._details import PACKED, is_uri, slice_of
from v2v.inputs._reader.recipe import Recipe
from v2v.run import Run
from v2v.types import DiskFormat, SourceDisk

HEADS = (b"COWD", (0xCAFEBABE).to_bytes(8, "little"))  # of vmfsSparse, of seSparse


def recipe_of(disk: SourceDisk, allowed: Sequence[Path], run: Run) -> Recipe | None:
    """How our reader opens the disk, if it is to; None if QEMU is."""
    lone = PACKED not in disk.details and slice_of(disk) is None and not is_uri(disk.location)
    if not lone or disk.format != DiskFormat.VMDK or not any(map(_is_delta, disk.files)):
        return None
    path = Path(disk.location).resolve()
    roots = tuple(one.resolve() for one in allowed if one.is_dir())
    if not all(_is_in(Path(file), (path.parent, *roots)) for file in disk.files):
        return None  # one file elsewhere is allowed, and our reader knows folders only
    try:
        nbdkit.check_python()
    except HostError as exc:
        run.warn(
            f"{disk.location} has snapshots that QEMU reads slowly: {exc.message}",
            id="vmdk-slow",
            hint=exc.hint,
        )
        return None
    return Recipe(str(path), tuple(map(str, roots)))


def _is_delta(file: str) -> bool:
    with Path(file).open("rb") as opened:
        return opened.read(len(HEADS[1])).startswith(HEADS)


def _is_in(file: Path, folders: Sequence[Path]) -> bool:
    return any(file.is_relative_to(folder) for folder in folders)
