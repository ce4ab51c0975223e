"""A process that runs many jobs does not grow: no buffer, connection, file or thread stays."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import v2v
from tests.growth import kept_by
from tests.places import nbd_servers
from v2v.errors import Cancelled, TargetError
from v2v.events import CopyProgress
from v2v.outputs.local import LocalOutput
from v2v.types import MiB

AS_IT_IS = v2v.ConversionOptions(convert=False)
QCOW2 = {"-of": "qcow2"}  # goes through qemu-nbd


class Jobs:
    """Runs the same job again and again, each time as if it were the first one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.disk = folder / "web.img"
        self.disk.write_bytes(bytes(510) + b"\x55\xaa" + os.urandom(6 * MiB - 512))

    def kept(self, words: dict[str, str], *, source: str = "", **more: object) -> dict[str, int]:
        return kept_by(lambda: self.run(words, source, **more))

    def run(self, words: dict[str, str], source: str = "", **more: object) -> None:
        target, jobs = self.folder / "target", self.folder / "jobs"
        target.mkdir()
        try:
            v2v.convert(
                source or self.disk,
                storage=target,
                output_options=words,
                conversion=AS_IT_IS,
                jobs=jobs,
                **more,
            )
        finally:
            shutil.rmtree(target)
            shutil.rmtree(jobs)


@pytest.fixture
def jobs(tmp_path: Path, need_tool) -> Jobs:
    for name in ("nbdkit", "qemu-nbd", "qemu-img"):
        need_tool(name)
    return Jobs(tmp_path)


@pytest.fixture
def over_nbd(jobs: Jobs, tmp_path: Path) -> Iterator[str]:
    with nbd_servers(tmp_path) as servers:
        yield servers.qemu_nbd(jobs.disk, "--read-only")


@pytest.mark.parametrize("words", [{}, QCOW2, {**QCOW2, "-oo compressed": ""}], ids=str)
def test_jobs_leave_nothing(jobs: Jobs, words: dict[str, str]) -> None:
    assert jobs.kept(words) == {}


def test_jobs_that_read_and_verify_over_nbd_leave_nothing(jobs: Jobs, over_nbd: str) -> None:
    options = v2v.CopyOptions(verify=1.0)
    assert jobs.kept(QCOW2, source=over_nbd, input="nbd", copy=options) == {}


def test_failed_jobs_leave_nothing(jobs: Jobs, monkeypatch) -> None:
    def fail(*args: object) -> None:
        raise TargetError("the disk is full", id="target-space")

    monkeypatch.setattr(LocalOutput, "finalize", fail)

    def failing() -> None:
        with pytest.raises(TargetError):
            jobs.run(QCOW2)

    assert kept_by(failing) == {}


def test_cancelled_jobs_leave_nothing(jobs: Jobs, over_nbd: str) -> None:
    def cancelled() -> None:
        cancel = v2v.Cancel()

        def stop(event: v2v.Event) -> None:
            if isinstance(event, CopyProgress):
                cancel.cancel()

        with pytest.raises(Cancelled):
            jobs.run(QCOW2, over_nbd, input="nbd", emit=stop, cancel=cancel)

    assert kept_by(cancelled) == {}
