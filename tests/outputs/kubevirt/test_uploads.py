"""-o kubevirt into a cluster: images on their way, what goes wrong, and what is left then."""

from __future__ import annotations

import itertools
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.contract.output_suite import GUEST
from tests.contract.test_outputs import make
from tests.kubernetes import words
from tests.outputs.kubevirt.job import SIZES, check_image, filled, source, warnings
from v2v.cancel import Cancel
from v2v.errors import Cancelled, TargetError
from v2v.events import CopyProgress
from v2v.outputs._files import working_path
from v2v.outputs._kubevirt import upload, volumes
from v2v.outputs._kubevirt.guessed import MAGIC, guessed_format
from v2v.types import MiB


def test_a_raw_image_gets_there_and_is_told_of(fake, output, staging, run, events_seen) -> None:
    disks, content = filled(output, source(), run)
    ref = output.finalize(source(), GUEST, disks, run)
    check_image(fake, content)
    sent = [e for e in events_seen if isinstance(e, CopyProgress) and e.phase == "send"]
    assert sent[-1].done == sent[-1].total == SIZES[0]
    assert ref.start_hint == "virtctl start -n default web"
    assert list(staging.iterdir()) == [] and fake.uploads == ["web-sda"]


def disguised(tmp_path: Path) -> bytes:
    """What a guest may write to its disk: a qcow2 image that has a file of ours behind it."""
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret" * 1000)
    image = tmp_path / "image"
    create = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", secret, image, "1M"]
    subprocess.run(create, check=True)
    return image.read_bytes().ljust(SIZES[0], b"\0")


def test_a_raw_disk_that_begins_as_an_image_arrives_as_it_is(
    fake, output, staging, run, tmp_path
) -> None:
    disks, _ = filled(output, source(), run)
    content = disguised(tmp_path)
    Path(disks[0].working).write_bytes(content)
    fake.cut = [MiB]
    output.finalize(source(), GUEST, disks, run)
    check_image(fake, content)
    assert list(staging.iterdir()) == []


@pytest.mark.parametrize(("offset", "magic", "name"), MAGIC)
def test_what_cdi_takes_raw_disks_for(tmp_path, offset, magic, name) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(offset) + magic + bytes(1024))
    assert guessed_format(disk) == name
    disk.write_bytes(bytes(offset + 1) + magic + bytes(1024))
    assert guessed_format(disk) is None
    disk.write_bytes(b"")
    assert guessed_format(disk) is None


def test_a_disk_that_cannot_be_sent_for_lack_of_room_is_kept(
    fake, output, staging, run, tmp_path
) -> None:
    disks, _ = filled(output, source(), run)
    Path(disks[0].working).write_bytes(disguised(tmp_path))
    in_the_way = working_path(staging / "qcow2-0", run.job_id)
    in_the_way.mkdir()
    with pytest.raises(TargetError) as error:
        output.finalize(source(), GUEST, disks, run)
    assert error.value.id == "target-write" and run.job_id in (error.value.hint or "")
    in_the_way.rmdir()
    output.finalize(source(), GUEST, disks, run)
    assert fake.names("virtualmachines") == ["web"]


def test_a_started_guest_needs_no_hint(fake, staging, run) -> None:
    made = make("kubevirt", words(fake, staging) | {"-of": "raw", "--start": ""})
    disks, _ = filled(made, source(), run)
    assert made.finalize(source(), GUEST, disks, run).start_hint is None
    assert fake.objects["virtualmachines", "default", "web"]["spec"]["runStrategy"] == "Always"


@pytest.mark.parametrize("token", ["", "a b", "ü", 5, "x\r\ny"])
def test_a_token_that_is_none_is_told(fake, output, run, token) -> None:
    disks, _ = filled(output, source(), run)
    original = fake.create

    def create(plural: str, *args: Any, **more: Any) -> tuple[int, Any]:
        made = original(plural, *args, **more)
        return (201, {"status": {"token": token}}) if plural == "uploadtokenrequests" else made

    fake.create = create  # type: ignore[method-assign]
    with pytest.raises(TargetError) as error:
        output.finalize(source(), GUEST, disks, run)
    assert error.value.id == "target-refused"


def test_a_proxy_without_the_asynchronous_way(fake, output, run) -> None:
    fake.asynchronous = False
    disks, content = filled(output, source(), run)
    output.finalize(source(), GUEST, disks, run)
    check_image(fake, content)


@pytest.mark.parametrize("fault", ["cut", "token", "busy", "conversion", "eviction"])
def test_what_breaks_is_sent_again_with_a_fresh_token(
    fake, output, run, events_seen, fault
) -> None:
    disks, content = filled(output, source(), run)
    if fault == "cut":
        fake.cut = [MiB]
    elif fault == "conversion":
        fake.broken = 1
    elif fault == "eviction":
        fake.evicted = 1
    else:
        fake.answers = [(401 if fault == "token" else 503, "not now")]
    output.finalize(source(), GUEST, disks, run)
    check_image(fake, content)
    assert fake.uploads == ["web-sda"] * 2 and fake.tokens == {}
    assert warnings(events_seen) == ["kubevirt-sent-again"]


def test_a_proxy_that_stays_away_keeps_the_image_for_resume(
    fake, output, staging, run, monkeypatch
) -> None:
    monkeypatch.setattr(upload, "PAUSES", (0.0, 0.0))
    disks, content = filled(output, source(), run)
    fake.cut = [MiB] * 3
    with pytest.raises(TargetError) as error:
        output.finalize(source(), GUEST, disks, run)
    assert error.value.id == "kubevirt-upload" and run.job_id in (error.value.hint or "")
    assert len(list(staging.iterdir())) == 1 and fake.names("virtualmachines") == []
    output.check_source(source(), run)
    output.finalize(source(), GUEST, disks, run)
    check_image(fake, content)


@pytest.mark.parametrize(("status", "id"), [(400, "kubevirt-upload"), (413, "kubevirt-upload")])
def test_an_image_that_is_refused_is_not_sent_again(fake, output, run, status, id) -> None:
    disks, _ = filled(output, source(), run)
    fake.answers = [(status, "no")]
    with pytest.raises(TargetError) as error:
        output.finalize(source(), GUEST, disks, run)
    assert error.value.id == id and error.value.hint and fake.uploads == ["web-sda"]


def test_a_volume_that_is_too_small_is_told(fake, output, run) -> None:
    fake.shrunk = MiB
    disks, _ = filled(output, source(), run)
    with pytest.raises(TargetError, match="larger than") as error:
        output.finalize(source(), GUEST, disks, run)
    assert error.value.id == "target-space" and fake.uploads == ["web-sda"]


def test_what_was_sent_before_a_crash_is_not_sent_twice(fake, output, run) -> None:
    disks, _ = filled(output, source(), run)
    fake.denied.add("virtualmachines")
    with pytest.raises(TargetError) as error:
        output.finalize(source(), GUEST, disks, run)
    assert error.value.id == "target-forbidden"
    fake.denied.clear()
    output.finalize(source(), GUEST, disks, run)
    assert fake.uploads == ["web-sda"] and fake.names("virtualmachines") == ["web"]


def test_an_image_that_cdi_still_converts_is_waited_for(fake, output, run, monkeypatch) -> None:
    """As after kill -9: CDI refuses another one meanwhile."""
    disks, _ = filled(output, source(), run)
    monkeypatch.setattr(fake, "fill", lambda *_: (200, ""))
    monkeypatch.setattr(volumes, "DONE_SECONDS", 0.0)
    with pytest.raises(TargetError):
        output.finalize(source(), GUEST, disks, run)
    monkeypatch.setattr(volumes, "DONE_SECONDS", 60.0)
    fake.answers = [(503, "")] * 9
    real, looks = fake.get, itertools.count()

    def get(plural: str, namespace: str, name: str) -> dict[str, Any] | None:
        found = real(plural, namespace, name)
        if plural == "datavolumes" and next(looks) > 2:
            found["status"]["phase"] = "Succeeded"
        return found

    monkeypatch.setattr(fake, "get", get)
    output.finalize(source(), GUEST, disks, run)
    assert fake.uploads == ["web-sda"] and fake.names("virtualmachines") == ["web"]


def test_a_pod_that_is_evicted_and_finds_no_node_is_told(fake, output, run, monkeypatch) -> None:
    monkeypatch.setattr(volumes, "READY_SECONDS", 0.0)
    monkeypatch.setattr(upload, "PAUSES", ())
    disks, _ = filled(output, source(), run)

    def fill(namespace: str, name: str, sent: Path) -> tuple[int, str]:
        fake.objects["datavolumes", namespace, name]["status"]["phase"] = "UploadScheduled"
        return 200, ""

    monkeypatch.setattr(fake, "fill", fill)
    with pytest.raises(TargetError, match="evicted") as error:
        output.finalize(source(), GUEST, disks, run)
    assert error.value.id == "kubevirt-upload"


def test_a_volume_that_is_another_s_by_now_gets_no_image(fake, output, run) -> None:
    disks, _ = filled(output, source(), run)
    del fake.objects["datavolumes", "default", "web-sda"]["metadata"]["labels"]
    with pytest.raises(TargetError) as error:
        output.finalize(source(), GUEST, disks, run)
    assert error.value.id == "target-lost" and fake.uploads == []


def test_no_vm_is_made_of_volumes_that_went_since_they_were_filled(fake, output, run) -> None:
    disks, _ = filled(output, source(), run)
    fake.denied.add("virtualmachines")
    with pytest.raises(TargetError):
        output.finalize(source(), GUEST, disks, run)
    fake.denied.clear()
    fake.delete("datavolumes", "default", "web-sda")
    with pytest.raises(TargetError) as error:
        output.finalize(source(), GUEST, disks, run)
    assert error.value.id == "target-lost" and fake.names("virtualmachines") == []


def test_a_vm_that_took_the_name_meanwhile_is_not_replaced(fake, output, run) -> None:
    disks, _ = filled(output, source(), run)
    fake.put("virtualmachines", "default", "web", spec="theirs")
    with pytest.raises(TargetError) as error:
        output.finalize(source(), GUEST, disks, run)
    assert error.value.id == "target-exists"
    assert fake.objects["virtualmachines", "default", "web"]["spec"] == "theirs"
    output.discard(disks, run)
    assert fake.names("virtualmachines") == ["web"] and fake.names("datavolumes") == []


def test_a_cancelled_upload_ends(fake, output, run) -> None:
    disks, _ = filled(output, source(), run)
    run.cancel = Cancel()
    original = fake.fill

    def fill(*args: Any) -> tuple[int, str]:
        run.cancel.cancel()
        return original(*args)

    fake.fill = fill  # type: ignore[method-assign]
    with pytest.raises(Cancelled):
        output.finalize(source(), GUEST, disks, run)
    output.discard(disks, run)
    assert fake.names("datavolumes") == []


def test_a_volume_that_somebody_removed_is_told(fake, output, run) -> None:
    disks, _ = filled(output, source(), run)
    fake.delete("datavolumes", "default", "web-sda")
    with pytest.raises(TargetError) as error:
        output.finalize(source(), GUEST, disks, run)
    assert error.value.id == "target-lost"


def test_no_secret_is_written_down(fake, output, run, events_seen) -> None:
    disks, _ = filled(output, source(), run)
    output.finalize(source(), GUEST, disks, run)
    kept = b"".join(path.read_bytes() for path in run.folder.rglob("*") if path.is_file())
    for secret in (fake.token, "token-0."):
        assert secret.encode() not in kept and secret not in repr(events_seen)
