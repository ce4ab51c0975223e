"""What a guest consists of, as a tool reads it that has nothing to do with v2v."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

from fixtures.partitions import first_partition


def guest_files(disk: Path) -> dict[str, str]:
    """The first partition of a raw image, by debugfs: the SHA-256 of a file, a link's target."""
    with TemporaryDirectory() as folder:
        source = f"{disk}?offset={first_partition(disk)}"
        argv = ["debugfs", "-R", f"rdump / {folder}", source]
        subprocess.run(argv, check=True, capture_output=True)
        files = {str(path.relative_to(folder)): content(path) for path in Path(folder).rglob("*")}
    assert len(files) > 10, "debugfs read no guest"
    return files


def content(path: Path) -> str:
    if path.is_symlink():
        return f"-> {path.readlink()}"
    if not path.is_file():
        return ""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
