"""A process that runs many jobs does not grow: no buffer, connection, file or thread stays."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

import v2v
from tests.growth import kept_by
from tests.kubernetes import kubernetes, words
from tests.openstack_cloud import running
from tests.ovirt_engine import ovirt_engine
from tests.places import nbd_servers
from tests.proxmox_host import proxmox_host
from v2v.errors import Cancelled, TargetError
from v2v.events import CopyProgress
from v2v.outputs.local import LocalOutput
from v2v.types import MiB

AS_IT_IS = v2v.ConversionOptions(convert=False)
QCOW2 = {"-of": "qcow2"}  # goes through qemu-nbd


# What a client of servers must not leave. The fakes write things down, and libraries keep some:
# openstacksdk remembers 256 questions, oVirt's SDK never frees the bodies of its requests.
COSTLY = (
    "open files",
    "threads",
    "<class 'memoryview'>",
    "<class 'logging.NullHandler'>",
    "<class 'socket.socket'>",
    "<class 'ssl.SSLSocket'>",
    "<class 'ssl.SSLContext'>",
)


class Jobs:
    """Runs the same job again and again, each time as if it were the first one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.disk = folder / "web.img"
        self.disk.write_bytes(bytes(510) + b"\x55\xaa" + os.urandom(6 * MiB - 512))

    def kept(self, words: dict[str, str], *, source: str = "", **more: object) -> dict[str, int]:
        return kept_by(lambda: self.run(words, source, **more))

    def kept_at(self, output: str, words: dict[str, str]) -> dict[str, int]:
        """The same of an output that is no folder; each job has a guest of its own."""
        names = (f"web{number}" for number in count())

        def job() -> None:
            v2v.convert(
                self.disk,
                output=output,
                output_options=words,
                name=next(names),
                conversion=AS_IT_IS,
                jobs=self.folder / "jobs",
            )

        return kept_by(job, of=COSTLY)

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


@pytest.mark.parametrize("options", [{}, QCOW2, {**QCOW2, "-oo compressed": ""}], ids=str)
def test_jobs_leave_nothing(jobs: Jobs, options: dict[str, str]) -> None:
    assert jobs.kept(options) == {}


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


def test_jobs_to_openstack_leave_no_connections(jobs: Jobs, tmp_path: Path) -> None:
    with running(tmp_path / "cloud") as cloud:
        assert jobs.kept_at("openstack", cloud.attaching) == {}


def test_jobs_to_ovirt_leave_no_connections(jobs: Jobs) -> None:
    with ovirt_engine() as engine:
        assert jobs.kept_at("rhv-upload", {**engine.words, "-os": "data"}) == {}


def test_jobs_to_kubevirt_leave_no_connections(jobs: Jobs, tmp_path: Path) -> None:
    with kubernetes(tmp_path / "cluster") as fake:
        assert jobs.kept_at("kubevirt", words(fake, tmp_path)) == {}


def test_jobs_to_proxmox_leave_no_connections(jobs: Jobs, tmp_path: Path, monkeypatch) -> None:
    with proxmox_host(tmp_path / "host", monkeypatch) as host:
        host.server.bridges.append("default")
        assert jobs.kept_at("proxmox", host.words(**{"-oo staging": str(tmp_path)})) == {}
