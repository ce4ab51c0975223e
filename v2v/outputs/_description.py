"""The file of this host that describes a guest whose disks are elsewhere."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from v2v.errors import TargetError
from v2v.outputs import _files
from v2v.run import Run
from v2v.types import Source

INODES = "final-files"  # journal: the inode that belongs under the file's name
MODE = 0o644
OTHER_FILE = "choose another file with -oo description=FILE"


class Description:
    """A file that is there when it is complete, and replaces another with `force` alone."""

    def __init__(self, final: Path, run: Run, *, force: bool) -> None:
        self.final = final
        self._run = run
        self._force = force
        self._working = _files.working_path(final, run.job_id)

    def check(self, source: Source) -> None:
        """Refuse a name that is taken, and a folder that takes no files."""
        try:
            tempfile.TemporaryFile(dir=self.final.parent).close()  # the only test root can trust
            self._working.exists()  # its name is longer than the final one
        except OSError as exc:
            raise TargetError(
                f"-oo description: cannot write to {self.final.parent}: {exc.strerror}",
                id="target-unwritable",
                hint=OTHER_FILE,
            ) from exc
        _files.check_not_source(self.final, source, rename=OTHER_FILE)
        if not _files.is_inode(self.final, self._inodes().get(str(self.final))):
            _files.check_free(self.final, force=self._force, rename=OTHER_FILE)

    def publish(self, content: Callable[[], bytes]) -> None:
        """Write it, and give it its name. Safe to repeat after a crash."""
        if INODES not in self._run.journal:
            self._run.journal.put(INODES, self._write(content()))
        pair = (self._working, self.final)
        _files.publish([pair], self._inodes(), force=self._force, rename=OTHER_FILE)

    def discard(self) -> None:
        """Remove what has not its name yet."""
        self._working.unlink(missing_ok=True)

    def _inodes(self) -> dict[str, int]:
        known = INODES in self._run.journal
        return self._run.journal.get(INODES, dict[str, int]) if known else {}

    def _write(self, content: bytes) -> dict[str, int]:
        try:
            _files.write_file(self._working, content, MODE)
            return {str(self.final): _files.sync_file(self._working)}
        except OSError as exc:
            raise TargetError(
                f"cannot write {self._working}: {exc.strerror}",
                id="target-write",
                hint="when that is repaired, continue with `v2v resume`",
            ) from exc
