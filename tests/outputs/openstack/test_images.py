"""-o glance: uploads that fail, are cancelled, are killed, and go on."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest

from tests.contract.output_suite import GUEST
from tests.openstack_cloud import Cloud
from tests.outputs.openstack.jobs import KilledJob, make_guest, refused
from v2v import api, options
from v2v.cancel import Cancel
from v2v.errors import Cancelled
from v2v.events import CopyProgress, Warned
from v2v.job import ConversionOptions
from v2v.outputs.glance import GlanceOptions, GlanceOutput
from v2v.run import Run
from v2v.types import DiskFormat, GiB, MiB, Source, SourceDisk, TargetDisk

SIZES = (3 * MiB, MiB)
SOURCE = Source(
    name="web1",
    input="disk",
    disks=tuple(SourceDisk(f"/{size}", DiskFormat.RAW, size) for size in SIZES),
    memory=GiB,
)


def make(cloud: Cloud, **more: str) -> GlanceOutput:
    words = {**cloud.login, "-of": "raw", **{f"-{key}": word for key, word in more.items()}}
    return GlanceOutput(options.parse(GlanceOptions, words, module="-o glance"))


def staged(cloud: Cloud, run: Run) -> tuple[GlanceOutput, tuple[TargetDisk, ...]]:
    """All is copied to files."""
    output = make(cloud)
    output.check_source(SOURCE, run)
    disks = output.create_disks(SOURCE, SIZES, run)
    for disk in disks:
        Path(disk.working).write_bytes(os.urandom(disk.size))
    run.journal.put("disks", disks)
    return output, disks


def contents(cloud: Cloud) -> list[bytes]:
    """Of the images, in the order in which they were made."""
    return [cloud.state.contents[one] for one in cloud.state.images]


def test_what_the_images_have(cloud: Cloud, run: Run, events_seen) -> None:
    output, disks = staged(cloud, run)
    files = [Path(disk.working).read_bytes() for disk in disks]
    ref = output.finalize(SOURCE, GUEST, disks, run)
    first, second = cloud.state.images.values()
    assert contents(cloud) == files
    assert (first["name"], second["name"]) == ("web1", "web1-disk2")
    assert first["visibility"] == "private"
    assert (first["disk_format"], first["min_disk"], first["min_ram"]) == ("raw", 1, 1024)
    assert (first["hw_disk_bus"], first["hw_machine_type"]) == ("virtio", "q35")
    assert ref.metadata == first["id"]
    mapped = f"uuid={second['id']},source_type=image,destination_type=volume,volume_size=1"
    assert f"--image {first['id']} --block-device {mapped} -- web1" in (ref.start_hint or "")
    sent = [one for one in events_seen if isinstance(one, CopyProgress) and one.phase == "send"]
    assert {(one.disk, one.total) for one in sent} == {(0, 3 * MiB), (1, MiB)}
    assert not any(Path(disk.working).exists() for disk in disks)


def test_a_name_that_is_taken(cloud: Cloud, run: Run) -> None:
    for one in "xyz":  # more than one answer lists
        cloud.state.images[one] = {"id": one, "name": "web1-disk2", "status": "active"}
    assert "web1-disk2" in refused("target-exists", make(cloud).check_source, SOURCE, run).message


def test_a_format_that_glance_does_not_take(cloud: Cloud, run: Run) -> None:
    cloud.state.formats, qcow2 = ("raw", "iso"), make(cloud, of="qcow2")
    assert "raw, iso" in refused("target-format", qcow2.check_source, SOURCE, run).message
    make(cloud).check_source(SOURCE, run)


def test_quotas(cloud: Cloud, run: Run) -> None:
    output = make(cloud)
    cloud.state.most_images = 1
    assert "leaves 1" in refused("target-quota", output.check_source, SOURCE, run).message
    cloud.state.most_images, cloud.state.most_mib = 2, 2
    output.check_source(SOURCE, run)
    error = refused("target-quota", output.check_sizes, SIZES, SIZES, run)
    assert "need 4 MiB" in error.message and "leaves 2" in error.message
    cloud.state.most_mib = 3  # Glance looks at it before an image, not after it
    output.check_sizes(SIZES, SIZES, run)
    disks = staged(cloud, run)[1]
    output.finalize(SOURCE, GUEST, disks, run)
    output.check_source(SOURCE, run)  # its own images do not count twice


@pytest.mark.parametrize("status", [403, 404, 405])
@pytest.mark.parametrize("path", ["/info/usage", "/schemas/image"])
def test_limits_that_are_not_told_are_no_refusal(
    cloud: Cloud, run: Run, path: str, status: int
) -> None:
    """An old Glance has none of them; another may keep them from its users."""
    cloud.state.fail("GET", path, status)
    make(cloud).check_source(SOURCE, run)
    assert cloud.state.faults == []


def test_an_upload_that_is_damaged_is_not_kept(cloud: Cloud, run: Run) -> None:
    output, disks = staged(cloud, run)
    files = [Path(disk.working).read_bytes() for disk in disks]
    cloud.state.spoil_uploads = True
    refused("target-checksum", output.finalize, SOURCE, GUEST, disks, run)
    assert cloud.state.images == {}
    cloud.state.spoil_uploads = False
    make(cloud).finalize(SOURCE, GUEST, disks, run)
    assert contents(cloud) == files


@pytest.mark.parametrize("status", [None, 500, 503, 413])
def test_a_service_that_fails_in_the_middle(cloud: Cloud, run: Run, status: int | None) -> None:
    """The first image is sent once only."""
    output, disks = staged(cloud, run)
    files = [Path(disk.working).read_bytes() for disk in disks]
    cloud.state.watch = fail_second(cloud, status)
    id = {None: "target-unreachable", 413: "target-quota"}.get(status, "target-refused")
    refused(id, output.finalize, SOURCE, GUEST, disks, run)
    assert [one["name"].startswith("v2v-") for one in cloud.state.images.values()] == [True, True]
    seen = len(cloud.state.seen)
    make(cloud).finalize(SOURCE, GUEST, disks, run)
    assert contents(cloud) == files
    assert sum(line.startswith("PUT") for line in cloud.state.seen[seen:]) == 1


def fail_second(cloud: Cloud, status: int | None) -> Any:
    uploads = []

    def watch(line: str) -> None:
        if line.startswith("PUT"):
            uploads.append(line)
            if len(uploads) == 2:
                cloud.state.fail("PUT", "/file$", status)

    return watch


def test_a_cancelled_upload_ends_at_once(cloud: Cloud, run: Run) -> None:
    output, disks = staged(cloud, run)
    cloud.state.watch = lambda line: run.cancel.cancel() if line.startswith("upload") else None
    with pytest.raises(Cancelled):
        output.finalize(SOURCE, GUEST, disks, run)
    cloud.state.watch = lambda line: None
    output.discard(disks, run.part(cancel=Cancel()))
    assert cloud.state.images == {}
    assert not any(Path(disk.working).exists() for disk in disks)


def test_an_upload_that_glance_still_thinks_of_is_replaced(cloud: Cloud, run: Run) -> None:
    """A part of it came; nothing more can be sent to that image."""
    output, disks = staged(cloud, run)
    cloud.state.fail("PUT", "/file$", 500)
    refused("target-refused", output.finalize, SOURCE, GUEST, disks, run)
    (first,) = cloud.state.images.values()
    first["status"] = "saving"
    output.finalize(SOURCE, GUEST, disks, run)
    assert cloud.state.deleted == [first["id"]]
    assert [one["status"] for one in cloud.state.images.values()] == ["active", "active"]


def test_another_kind_of_checksum(cloud: Cloud, run: Run) -> None:
    output, disks = staged(cloud, run)
    expected = hashlib.md5(Path(disks[0].working).read_bytes()).hexdigest()
    output.finalize(SOURCE, GUEST, disks[:1], run)
    (image,) = cloud.state.images.values()
    assert image["checksum"] == expected
    with Run.create(run.folder.parent, "other") as other:
        output, disks = staged_again(cloud, other)
        cloud.state.watch = lambda line: forget_hash(cloud)
        output.finalize(SOURCE, GUEST, disks[:1], other)


def staged_again(cloud: Cloud, run: Run) -> tuple[GlanceOutput, tuple[TargetDisk, ...]]:
    cloud.state.images.clear()
    return staged(cloud, run)


def forget_hash(cloud: Cloud) -> None:
    """As an old Glance, which has MD5 alone."""
    for image in cloud.state.images.values():
        image.pop("os_hash_algo", None)
        image.pop("os_hash_value", None)


def test_a_token_that_expires_during_the_copy(cloud: Cloud, run: Run) -> None:
    output, disks = staged(cloud, run)
    cloud.state.tokens.clear()
    output.finalize(SOURCE, GUEST, disks, run)
    assert len(cloud.state.images) == 2


def test_discard_after_the_end_leaves_the_images_and_tells(
    cloud: Cloud, run: Run, events_seen
) -> None:
    output, disks = staged(cloud, run)
    output.finalize(SOURCE, GUEST, disks, run)
    output.discard(disks, run)
    assert len(cloud.state.images) == 2
    (warned,) = [one for one in events_seen if isinstance(one, Warned)]
    assert warned.id == "target-left" and all(one in warned.text for one in cloud.state.images)


def test_another_project_does_not_hide_what_the_job_made(cloud: Cloud, run: Run) -> None:
    output, disks = staged(cloud, run)
    cloud.state.watch = fail_second(cloud, 500)
    refused("target-refused", output.finalize, SOURCE, GUEST, disks, run)
    elsewhere = make(cloud, **{"oo os-project-name": "other"})
    refused("target-project", elsewhere.check_source, SOURCE, run)
    refused("target-project", elsewhere.discard, disks, run)
    assert len(cloud.state.images) == 2


def test_discard_goes_on_past_what_cannot_be_deleted(cloud: Cloud, run: Run) -> None:
    output, disks = staged(cloud, run)
    cloud.state.watch = fail_second(cloud, 500)
    refused("target-refused", output.finalize, SOURCE, GUEST, disks, run)
    first = next(iter(cloud.state.images))
    cloud.state.undeletable.add(first)
    assert first in refused("target-refused", output.discard, disks, run).message
    assert list(cloud.state.images) == [first]
    assert not any(Path(disk.working).exists() for disk in disks)


@pytest.mark.parametrize("moment", ["POST /images", "upload"])
def test_a_killed_job_is_discarded(cloud: Cloud, tmp_path: Path, moment: str) -> None:
    job = KilledJob(tmp_path, "glance", cloud.login, cloud, make_guest(tmp_path), moment)
    assert len(cloud.state.images) == 1
    job.discard()
    assert cloud.state.images == {}
    assert not any(job.jobs.iterdir())


@pytest.mark.parametrize("moment", ["POST /images", "upload", "PATCH /images"])
def test_a_killed_job_goes_on(cloud: Cloud, tmp_path: Path, moment: str) -> None:
    guest = make_guest(tmp_path)
    words = {**cloud.login, "-of": "raw"}
    job = KilledJob(tmp_path, "glance", words, cloud, guest, moment)
    job.resume()
    (image,) = cloud.state.images.values()
    assert (image["name"], image["status"]) == ("web1", "active")
    assert contents(cloud) == [guest.read_bytes()]


def test_a_whole_job(cloud: Cloud, tmp_path: Path) -> None:
    result = api.convert(
        str(make_guest(tmp_path, MiB)),
        output="glance",
        output_options=cloud.login,
        conversion=ConversionOptions(convert=False),
        jobs=tmp_path / "jobs",
    )
    (image,) = cloud.state.images.values()
    assert image["disk_format"] == "qcow2"
    assert result.guest.disks[0].location == f"glance:{image['id']}"
