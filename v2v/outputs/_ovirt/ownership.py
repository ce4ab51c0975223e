"""Whom files of a storage domain belong to: VDSM reads and writes them as vdsm:kvm."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from v2v.errors import TargetError

OWNER = (36, 36)  # vdsm:kvm, the same on all hosts of oVirt
DISK_MODE = 0o660
FILE_MODE = 0o644
FOLDER_MODE = 0o755


def give(path: Path, mode: int) -> None:
    """To VDSM, if that is ours to do."""
    path.chmod(mode)
    if os.geteuid() == 0 and not _is_vdsms(path.lstat()):
        os.chown(path, *OWNER, follow_symlinks=False)


def is_given(path: Path) -> bool:
    return _is_vdsms(path.lstat())


def check_folder(folder: Path, *, shown: str) -> None:
    """Refuse a folder where nothing can be written, or where root cannot give files away."""
    if not folder.is_dir():
        raise TargetError(
            f"-os {shown}: {folder} is no folder",
            id="target-folder",
            hint="is the storage domain mounted?",
        )
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            if os.geteuid() == 0 and not _is_vdsms(os.fstat(file.fileno())):
                os.fchown(file.fileno(), *OWNER)
    except OSError as exc:
        raise TargetError(
            f"-os {shown}: cannot write to {folder} as oVirt does: {exc.strerror}",
            id="target-unwritable",
            hint="export it with all_squash,anonuid=36,anongid=36, as oVirt asks for; or run v2v "
            "as the user vdsm",
        ) from exc


def _is_vdsms(stat: os.stat_result) -> bool:
    return (stat.st_uid, stat.st_gid) == OWNER
