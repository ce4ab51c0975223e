"""-o block: devices that it refuses, and what it writes beside them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from lxml import etree

import v2v
from tests.fakes.disks import disk_content
from tests.outputs.migrating import Jobs, refused
from tests.places import loop_devices, tool
from v2v.errors import Cancelled
from v2v.events import StepFinished
from v2v.types import MiB

CONTENT = disk_content()
ROOM = len(CONTENT)


@pytest.fixture
def jobs(tmp_path: Path, need_tool) -> Jobs:
    for name in ("nbdkit", "qemu-nbd", "losetup"):
        need_tool(name)
    return Jobs(tmp_path / "jobs", "block")


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    with loop_devices(tmp_path) as make:
        yield make


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "web server.img"
    path.write_bytes(CONTENT)
    return path


def test_a_device_gets_the_disk_and_a_domain_names_it(jobs, disk, loop, tmp_path) -> None:
    device, link = loop(bytes(ROOM)), tmp_path / "lv-web"
    link.symlink_to(device)
    result = jobs.convert(disk, {"-os": str(link)}, name="web")
    assert device.read_bytes() == CONTENT
    assert jobs.warned() == []
    domain = etree.parse(str(result.guest.metadata))
    assert [disk.get("type") for disk in domain.iterfind("devices/disk[@device='disk']")] == [
        "block"
    ]
    (source,) = domain.iterfind("devices/disk/source")
    assert dict(source.attrib) == {"dev": str(link)}  # the name that lasts


def test_a_cancelled_job_goes_on_where_it_was(jobs, disk, loop) -> None:
    """Nothing can be taken back of a device, so what was copied counts."""
    device, cancel = loop(bytes(ROOM)), v2v.Cancel()

    class Seen(list[v2v.Event]):
        def append(self, event: v2v.Event) -> None:
            super().append(event)
            if isinstance(event, StepFinished) and event.step == "copied:0":
                cancel.cancel()

    jobs.seen = Seen()
    with pytest.raises(Cancelled):
        jobs.convert(disk, {"-os": str(device)}, cancel=cancel)
    jobs.resume()
    assert device.read_bytes() == CONTENT
    copies = [one for one in jobs.seen if isinstance(one, StepFinished) and one.step == "copied:0"]
    assert [one.reused for one in copies] == [False, True]


def test_a_larger_device_is_told(jobs, disk, loop) -> None:
    device = loop(bytes(ROOM + MiB))
    jobs.convert(disk, {"-os": str(device), "-oa": "preallocated"})
    assert device.read_bytes() == CONTENT + bytes(MiB)
    assert "target-larger" in jobs.warned()


def test_too_small_is_said_before_anything_is_written(jobs, disk, loop) -> None:
    device = loop(bytes(ROOM - MiB))
    refused("target-too-small", lambda: jobs.convert(disk, {"-os": str(device)}))
    assert device.read_bytes() == bytes(ROOM - MiB)


def test_a_mounted_device_is_refused_whatever_is_asked(jobs, disk, loop, tmp_path) -> None:
    device = loop(bytes(ROOM))
    tool("mkfs.ext4", "-q", device)
    (tmp_path / "mounted").mkdir()
    argv = ["mount", str(device), str(tmp_path / "mounted")]
    if subprocess.run(argv, capture_output=True, check=False).returncode:
        pytest.skip("mounting needs root")
    try:
        error = refused(
            "target-in-use", lambda: jobs.convert(disk, {"-os": str(device), "--force": ""})
        )
        assert "mounted" in error.message
    finally:
        tool("umount", tmp_path / "mounted")


def test_a_device_that_a_program_writes_to_is_refused(jobs, disk, loop) -> None:
    device = loop(bytes(ROOM))
    program = "import sys, time; f = open(sys.argv[1], 'r+b'); print(1, flush=True); time.sleep(60)"
    argv = [os.fsencode("/usr/bin/python3"), "-c", program, str(device)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as user:
        assert user.stdout is not None and user.stdout.readline()
        try:
            refused("target-in-use", lambda: jobs.convert(disk, {"-os": str(device)}))
        finally:
            user.kill()


def test_a_write_protected_device_is_refused(jobs, disk, loop) -> None:
    device = loop(bytes(ROOM), "--read-only")
    refused("target-read-only", lambda: jobs.convert(disk, {"-os": str(device)}))


def test_the_source_itself_is_refused(jobs, loop) -> None:
    device = loop(CONTENT)
    refused("target-is-source", lambda: jobs.convert(device, {"-os": str(device), "--force": ""}))
    assert device.read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("place", "id"),
    [
        ("/dev/no-such-disk", "target-device"),
        ("/dev/null", "target-device"),
        ("/etc/hostname", "target-device"),
        ("vg0/web", "option-value"),
        ("nbd://localhost/web", "option-value"),
    ],
)
def test_what_is_no_device_is_refused(jobs, disk, place: str, id: str) -> None:
    refused(id, lambda: jobs.convert(disk, {"-os": place}))


def test_a_description_whose_name_is_too_long_is_told_first(jobs, disk, loop, tmp_path) -> None:
    words = {"-os": str(loop(bytes(ROOM))), "-oo description": str(tmp_path / ("n" * 250))}
    refused("target-unwritable", lambda: jobs.convert(disk, words))


def test_a_folder_that_takes_no_description_is_told_first(jobs, disk, loop, tmp_path) -> None:
    device = loop(bytes(ROOM))
    words = {"-os": str(device), "-oo description": str(tmp_path / "none" / "web.xml")}
    refused("target-unwritable", lambda: jobs.convert(disk, words))
    assert device.read_bytes() == bytes(ROOM)
