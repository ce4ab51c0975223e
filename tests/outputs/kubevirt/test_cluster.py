"""-o kubevirt into a cluster: what it asks before, what goes wrong, and what is left then."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import kubernetes as kubernetes_library
import pytest
import yaml

from tests.contract.output_suite import GUEST
from tests.contract.test_outputs import make
from tests.kubernetes import Fake, kubernetes, words, write_kubeconfig
from v2v import password
from v2v.cancel import Cancel
from v2v.errors import Cancelled, TargetError, UsageError, V2VError
from v2v.events import CopyProgress, Warned
from v2v.output import Output
from v2v.outputs._files import working_path
from v2v.outputs._kubevirt import login, proxy, upload, volumes
from v2v.outputs._kubevirt.guessed import MAGIC, guessed_format
from v2v.run import Run
from v2v.types import DiskFormat, GuestCaps, MiB, Nic, Source, SourceDisk, TargetDisk

SIZES = (3 * MiB + 512,)


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[Fake]:
    with kubernetes(tmp_path / "cluster") as fake:
        yield fake


@pytest.fixture
def staging(tmp_path: Path) -> Path:
    folder = tmp_path / "staging"
    folder.mkdir()
    return folder


@pytest.fixture
def output(fake: Fake, staging: Path, need_tool) -> Output:
    need_tool("qemu-img")
    return make("kubevirt", words(fake, staging) | {"-of": "raw"})


def source(name: str = "web", **changes: Any) -> Source:
    disks = (SourceDisk("/x", DiskFormat.RAW, SIZES[0]),)
    return Source(name=name, input="disk", disks=disks, nics=(), **changes)


def filled(output: Output, vm: Source, run: Run) -> tuple[tuple[TargetDisk, ...], bytes]:
    """Created and copied; raw files, so that no copy engine is needed."""
    output.check_source(vm, run)
    disks = output.create_disks(vm, SIZES, run)
    content = os.urandom(SIZES[0])
    Path(disks[0].working).write_bytes(content)
    return disks, content


def refused(output: Output, run: Run, vm: Source | None = None) -> V2VError:
    with pytest.raises(V2VError) as error:
        output.check_source(vm or source(), run)
    assert error.value.hint
    return error.value


def warnings(events_seen) -> list[str]:
    return [event.id for event in events_seen if isinstance(event, Warned)]


# What is refused before anything is copied --------------------------------------------------------


def test_a_wrong_token_is_told(fake, output, run) -> None:
    fake.token = "another"
    error = refused(output, run)
    assert error.id == "target-login"
    assert "letmein" not in str(error)


def test_an_untrusted_api_is_told_and_gets_no_token(fake, staging, run) -> None:
    given = words(fake, staging)
    del given["-oo cafile"]
    error = refused(make("kubevirt", given), run)
    assert error.id == "target-untrusted" and "-oo cafile" in (error.hint or "")
    assert fake.requests == []


def test_an_untrusted_upload_proxy_is_told(fake, staging, run) -> None:
    given = words(fake, staging) | {"-oo upload-cafile": str(fake.certificate.cafile)}
    error = refused(make("kubevirt", given), run)
    assert error.id == "target-untrusted" and "-oo upload-cafile" in (error.hint or "")


def test_any_certificate_is_trusted_when_asked(fake, staging, run) -> None:
    given = words(fake, staging) | {"-oo verifypeer": "no"}
    del given["-oo cafile"], given["-oo upload-cafile"]
    make("kubevirt", given).check_source(source(), run)


@pytest.mark.parametrize("group", ["kubevirt.io", "cdi.kubevirt.io", "upload.cdi.kubevirt.io"])
def test_a_cluster_without_kubevirt_or_cdi(fake, output, run, group) -> None:
    fake.groups.remove(group)
    assert refused(output, run).id == "kubevirt-missing"


def test_an_unknown_namespace(fake, staging, run) -> None:
    made = make("kubevirt", words(fake, staging, namespace="nowhere"))
    assert refused(made, run).id == "kubevirt-namespace"


@pytest.mark.parametrize(
    "right", ["datavolumes", "virtualmachines", "uploadtokenrequests", "delete datavolumes"]
)
def test_missing_rights_are_found_early(fake, output, run, right) -> None:
    fake.denied.add(right)
    error = refused(output, run)
    assert error.id == "target-forbidden" and right in error.message
    assert fake.names("datavolumes") == []


def test_storage_classes(fake, staging, run) -> None:
    given = words(fake, staging)
    wrong = refused(make("kubevirt", given | {"-os": "slow"}), run)
    assert wrong.id == "target-storage" and "fast, standard" in (wrong.hint or "")
    vm = source()
    mapped = replace(vm, disks=(replace(vm.disks[0], target_storage="slow"),))
    assert refused(make("kubevirt", given), run, mapped).id == "target-storage"
    odd = replace(vm, disks=(replace(vm.disks[0], target_storage="../x"),))
    assert refused(make("kubevirt", given), run, odd).id == "target-storage"
    make("kubevirt", given | {"-os": "fast"}).check_source(vm, run)
    del fake.objects["storageclasses", "", "standard"]
    assert "no default" in refused(make("kubevirt", given), run).message


def test_a_class_that_cdi_knows_no_access_mode_of(fake, staging, run) -> None:
    """CDI would wait for one for ever, and tell it in an event alone."""
    made = make("kubevirt", words(fake, staging))
    for status in ({}, {"claimPropertySets": [{"volumeMode": "Block"}]}):
        fake.put("storageprofiles", "", "standard", status=status)
        error = refused(made, run)
        assert error.id == "target-storage" and "patch storageprofile standard" in (
            error.hint or ""
        )
    virt = {"annotations": {"storageclass.kubevirt.io/is-default-virt-class": "true"}}
    fake.put("storageclasses", "", "fast", metadata=virt)
    made.check_source(source(), run)
    del fake.objects["storageprofiles", "", "fast"]
    made.check_source(source(), run)


@pytest.mark.parametrize(
    ("plural", "name"),
    [("virtualmachines", "web"), ("datavolumes", "web-sda"), ("persistentvolumeclaims", "web-sda")],
)
def test_a_taken_name_is_refused(fake, output, run, plural, name) -> None:
    fake.put(plural, "default", name)
    error = refused(output, run, source("WEB"))
    assert error.id == "target-exists" and name in error.message


def test_networks_that_are_not_there(fake, output, run) -> None:
    def vm(network: str) -> Source:
        return replace(source(), nics=(Nic(network=network),))

    assert refused(output, run, vm("infra/lan")).id == "target-network"
    fake.put("network-attachment-definitions", "infra", "lan")
    fake.put("network-attachment-definitions", "default", "lan")
    for network in ("infra/lan", "lan", "pod", "VM Network"):
        output.check_source(vm(network), run)


def test_the_upload_proxy_is_needed_and_must_answer(fake, staging, run) -> None:
    fake.told_proxy = False
    assert refused(make("kubevirt", words(fake, staging)), run).id == "option-required"
    given = words(fake, staging, upload_proxy="https://127.0.0.1:1")
    assert refused(make("kubevirt", given), run).id == "target-unreachable"
    given["-oo upload-proxy"] = fake.proxy + "/elsewhere"
    assert refused(make("kubevirt", given), run).id == "target-unreachable"
    given["-oo upload-proxy"] = "https://[x"
    assert refused(make("kubevirt", given), run).id in ("uri-invalid", "option-value")


def test_an_upload_proxy_that_is_silent_is_not_waited_for_long(
    fake, output, run, monkeypatch
) -> None:
    monkeypatch.setattr(proxy, "LOOK_SECONDS", 0.1)
    fake.silence.clear()
    assert refused(output, run).id == "target-unreachable"
    fake.silence.set()


def test_an_api_that_is_not_there(fake, staging, run) -> None:
    made = make("kubevirt", words(fake, staging) | {"-oc": "https://127.0.0.1:1"})
    assert refused(made, run).id == "target-unreachable"


def test_a_server_that_is_no_kubernetes(fake, staging, run) -> None:
    given = words(fake, staging) | {"-oc": fake.proxy}
    made = make("kubevirt", given | {"-oo cafile": given["-oo upload-cafile"]})
    assert refused(made, run).id in ("target-answer", "target-refused")


def test_an_answer_without_end_is_not_kept(fake, output, run, monkeypatch) -> None:
    monkeypatch.setattr(login, "MAX_ANSWER", 20_000)
    fake.groups |= {f"{number}.example.com" for number in range(1000)}
    assert refused(output, run).id == "target-answer"


def test_files_that_hold_no_certificates_or_token(fake, staging, tmp_path, run) -> None:
    given = words(fake, staging)
    empty = tmp_path / "empty"
    empty.write_text("")
    assert refused(make("kubevirt", given | {"-oo cafile": str(empty)}), run).id == "tls-files"
    missing = given | {"-oo upload-cafile": str(tmp_path / "missing")}
    assert refused(make("kubevirt", missing), run).id == "tls-files"
    assert refused(make("kubevirt", given | {"-op": str(empty)}), run).id == "option-required"
    empty.write_text("to\x01ken")
    assert refused(make("kubevirt", given | {"-op": str(empty)}), run).id == "password-file"


def test_sizes_that_do_not_fit(fake, output, run) -> None:
    fake.quota = {"requests.storage": "4Mi", "persistentvolumeclaims": "1"}
    output.check_sizes(SIZES, [0], run)
    with pytest.raises(TargetError, match=r"requests\.storage") as error:
        output.check_sizes([4 * MiB + 512], [0], run)
    assert error.value.id == "target-space"
    with pytest.raises(TargetError, match="persistentvolumeclaims"):
        output.check_sizes([MiB, MiB], [0, 0], run)
    with pytest.raises(TargetError) as error:
        output.check_sizes([MiB + 1], [0], run)
    assert error.value.id == "target-disk-size"
    with pytest.raises(TargetError) as error:
        output.check_sizes([MiB], [1 << 60], run)
    assert error.value.id == "staging-space"


def test_a_guest_of_another_architecture(output, run) -> None:
    caps = GuestCaps(GUEST.caps.block_bus, GUEST.caps.net_model, GUEST.caps.machine, arch="ppc64le")
    with pytest.raises(TargetError) as error:
        output.check_guest(replace(GUEST, caps=caps), run)
    assert error.value.id == "target-arch"


def test_a_vm_that_the_cluster_refuses_is_told_before_it_is_copied(fake, output, run) -> None:
    run.journal.put("source", source())
    output.check_guest(GUEST, run)
    assert fake.names("virtualmachines") == []
    fake.refusal = "VMPersistentState feature gate is not enabled"
    with pytest.raises(TargetError, match="feature gate") as error:
        output.check_guest(GUEST, run)
    assert error.value.id == "target-refused" and error.value.hint
    fake.refusal = "webhook does not support dry run"
    output.check_guest(GUEST, run)
    fake.put("virtualmachines", "default", "web", metadata={"labels": {"v2v-job": run.job_id}})
    output.check_guest(GUEST, run)


# Volumes ------------------------------------------------------------------------------------------


def test_the_volumes_ask_for_what_the_user_wants(fake, staging, run) -> None:
    given = words(fake, staging, namespace="vms") | {"-os": "fast", "-oa": "preallocated"}
    make("kubevirt", given).create_disks(source(), SIZES, run)
    volume = fake.objects["datavolumes", "vms", "web-sda"]
    assert volume["spec"]["storage"]["storageClassName"] == "fast"
    assert volume["spec"]["storage"]["resources"]["requests"]["storage"] == "4Mi"
    assert volume["spec"]["preallocation"] is True
    assert volume["metadata"]["labels"] == {"v2v-job": run.job_id}


def test_claims_without_labels_are_known_by_their_volumes(fake, output, run) -> None:
    fake.labels_claims = False
    disks = output.create_disks(source(), SIZES, run)
    output.check_source(source(), run)
    output.discard(disks, run)
    assert fake.names("datavolumes") == []


@pytest.mark.parametrize(
    ("phase", "reason", "id"),
    [
        ("Pending", "ErrExceededQuota", "target-space"),
        ("Pending", "ErrClaimNotValid", "target-storage"),
        ("Failed", "Error", "kubevirt-volume"),
        ("Pending", "SomethingElse", "kubevirt-volume"),
    ],
)
def test_a_volume_that_comes_to_nothing_is_rolled_back(
    fake, output, staging, run, monkeypatch, phase, reason, id
) -> None:
    monkeypatch.setattr(volumes, "READY_SECONDS", 0)
    fake.phase = phase
    wrong = {"type": "Bound", "status": "False", "reason": reason, "message": "no \x1b luck"}
    fake.conditions = [wrong]
    with pytest.raises(TargetError, match="luck") as error:
        output.create_disks(source(), SIZES, run)
    assert error.value.id == id and "\x1b" not in error.value.message
    assert fake.names("datavolumes") == [] and list(staging.iterdir()) == []


def test_a_name_that_was_taken_meanwhile_stays_theirs(fake, output, staging, run) -> None:
    output.check_source(source(), run)
    fake.put("datavolumes", "default", "web-sda")
    with pytest.raises(TargetError) as error:
        output.create_disks(source(), SIZES, run)
    assert error.value.id == "target-exists"
    assert fake.names("datavolumes") == ["web-sda"] and list(staging.iterdir()) == []


def test_volumes_that_the_cluster_holds_are_told(
    fake, output, run, events_seen, monkeypatch
) -> None:
    disks, _ = filled(output, source(), run)
    monkeypatch.setattr(volumes, "GONE_SECONDS", 0.0)
    monkeypatch.setattr(fake, "delete", lambda *_: None)  # a finalizer
    output.discard(disks, run)
    assert warnings(events_seen) == ["kubevirt-lingering"]


def test_a_cancelled_job_takes_its_volumes_with_it(fake, output, run) -> None:
    fake.phase = "Pending"
    run.cancel = Cancel()
    original = fake._bind

    def bind_and_cancel(*args: Any) -> None:
        original(*args)
        run.cancel.cancel()

    fake._bind = bind_and_cancel  # type: ignore[method-assign]
    with pytest.raises(Cancelled):
        output.create_disks(source(), SIZES, run)
    assert fake.names("datavolumes") == []


# Uploads ------------------------------------------------------------------------------------------


def check_image(fake: Fake, content: bytes, namespace: str = "default") -> None:
    whole = fake.image("web-sda", namespace).read_bytes()
    assert whole[: len(content)] == content and not any(whole[len(content) :])


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


def test_an_old_client_library_is_told(output, run, monkeypatch) -> None:
    """Its answers are read whole before they could be bounded."""
    monkeypatch.setattr(kubernetes_library, "__version__", "36.0.3")
    error = refused(output, run)
    assert error.id == "binding-missing" and "36.0.3" in error.message


# A kubeconfig -------------------------------------------------------------------------------------


@pytest.fixture
def kubeconfig(fake: Fake, tmp_path: Path) -> Path:
    return write_kubeconfig(fake, tmp_path / "config")


def by_kubeconfig(fake: Fake, staging: Path, file: Path, **more: str) -> Output:
    given = words(fake, staging, kubeconfig=str(file), **more) | {"-of": "raw"}
    for flag in ("-oc", "-op", "-oo cafile"):
        del given[flag]
    return make("kubevirt", given)


def test_a_kubeconfig_tells_where_and_who(
    fake, staging, kubeconfig, run, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    made = by_kubeconfig(fake, staging, kubeconfig)
    disks, content = filled(made, source(), run)
    ref = made.finalize(source(), GUEST, disks, run)
    check_image(fake, content, "vms")
    assert ref.metadata == "vms/web"
    assert list((tmp_path / "tmp").iterdir()) == [], "a killed job would leave keys there"


def test_the_namespace_of_the_command_line_wins(fake, staging, kubeconfig, run) -> None:
    by_kubeconfig(fake, staging, kubeconfig, namespace="default").create_disks(source(), SIZES, run)
    assert fake.names("datavolumes", "default") == ["web-sda"]


def test_a_job_does_not_go_on_somewhere_else(fake, staging, kubeconfig, run) -> None:
    disks = by_kubeconfig(fake, staging, kubeconfig).create_disks(source(), SIZES, run)
    write_kubeconfig(fake, kubeconfig, namespace="default")
    with pytest.raises(UsageError) as error:
        by_kubeconfig(fake, staging, kubeconfig).discard(disks, run)
    assert error.value.id == "kubevirt-elsewhere"
    assert fake.names("datavolumes", "vms") == ["web-sda"]


@pytest.mark.parametrize(
    "content",
    [
        None,
        "[]",
        "a: [",
        "contexts: 5",
        "contexts: []",
        "{current-context: a, contexts: [{name: a, context: {cluster: c, user: u}}], "
        "clusters: [{name: c, cluster: {server: 'https://x', certificate-authority-data: '%'}}], "
        "users: []}",
        "{current-context: a, contexts: [{name: a, context: {cluster: c, user: u}}], "
        "clusters: [], users: []}",
    ],
)
def test_files_that_are_no_kubeconfig(fake, staging, tmp_path, run, content) -> None:
    file = tmp_path / "config"
    if content is not None:
        file.write_text(content)
    with pytest.raises(UsageError) as error:
        by_kubeconfig(fake, staging, file).check_source(source(), run)
    assert error.value.id == "kubevirt-kubeconfig"


EXEC = {"apiVersion": "client.authentication.k8s.io/v1", "interactiveMode": "Never"}


@pytest.mark.parametrize(
    "user",
    [
        {"exec": {**EXEC, "command": "/no/such"}},
        {"exec": {**EXEC, "command": "sh", "args": ["-c", "echo hush >&2; exit 3"]}},
        {"exec": {**EXEC, "command": "echo", "args": ["[]"]}},
        {"auth-provider": {"name": "azure", "config": {"access-token": "hush"}}},
        {"auth-provider": {"name": "gcp", "config": {"cmd-path": "/no/such", "cmd-args": "x"}}},
        {
            "auth-provider": {
                "name": "oidc",
                "config": {
                    "id-token": "e30.eyJleHAiOiAxfQ.hush",
                    "client-id": "a",
                    "client-secret": "hush",
                    "refresh-token": "hush",
                    "idp-issuer-url": "https://127.0.0.1:1",
                },
            }
        },
        {"tokenFile": "missing"},
    ],
)
def test_a_kubeconfig_whose_user_gets_no_credentials(
    fake, staging, kubeconfig, run, user, capfd
) -> None:
    """The library would ask as nobody, and print what a program says."""
    content = yaml.safe_load(kubeconfig.read_text())
    content["users"][0]["user"] = user
    kubeconfig.write_text(yaml.safe_dump(content))
    error = refused(by_kubeconfig(fake, staging, kubeconfig), run)
    assert error.id == "kubevirt-kubeconfig" and fake.requests == []
    printed = capfd.readouterr()
    assert "hush" not in str(error) + printed.out + printed.err


def test_a_context_that_is_not_there(fake, staging, kubeconfig, run) -> None:
    with pytest.raises(UsageError, match="no context other") as error:
        by_kubeconfig(fake, staging, kubeconfig, context="other").check_source(source(), run)
    assert "here" in (error.value.hint or "")


def test_a_program_that_gives_the_token_gets_no_passwords(
    fake, staging, kubeconfig, run, tmp_path, monkeypatch
) -> None:
    """As cloud providers have it: the client library starts it."""
    monkeypatch.setattr(password, "_answers", {})
    monkeypatch.setenv("V2V_PASSWORD", "esxi-secret")
    seen = tmp_path / "environment"
    credential = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "kind": "ExecCredential",
        "status": {"token": fake.token},
    }
    script = f"import os, json; open({str(seen)!r}, 'w').write(repr(dict(os.environ)))"
    script += f"; print(json.dumps({credential!r}))"
    content = yaml.safe_load(kubeconfig.read_text())
    plugin = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": sys.executable,
        "args": ["-c", script],
        "interactiveMode": "Never",
    }
    content["users"][0]["user"] = {"exec": plugin}
    kubeconfig.write_text(yaml.safe_dump(content))
    by_kubeconfig(fake, staging, kubeconfig).check_source(source(), run)
    assert "PATH" in seen.read_text() and "esxi-secret" not in seen.read_text()
