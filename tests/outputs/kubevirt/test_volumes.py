"""-o kubevirt into a cluster: the volumes that it makes there."""

from __future__ import annotations

from typing import Any

import pytest

from tests.contract.test_outputs import make
from tests.kubernetes import words
from tests.outputs.kubevirt.job import SIZES, filled, source, warnings
from v2v.cancel import Cancel
from v2v.errors import Cancelled, TargetError
from v2v.outputs._kubevirt import volumes


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


@pytest.mark.parametrize("plural", ["datavolumes", "persistentvolumeclaims"])
def test_a_name_that_was_taken_meanwhile_stays_theirs(fake, output, staging, run, plural) -> None:
    output.check_source(source(), run)
    fake.put(plural, "default", "web-sda")
    with pytest.raises(TargetError) as error:
        output.create_disks(source(), SIZES, run)
    assert error.value.id == "target-exists"
    assert fake.names(plural) == ["web-sda"] and list(staging.iterdir()) == []


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
