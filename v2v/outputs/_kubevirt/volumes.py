"""The DataVolumes of a job: made, waited for, and removed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from v2v.errors import TargetError
from v2v.outputs._kubevirt import Object
from v2v.outputs._kubevirt.answers import name_of, quota_error, text, value
from v2v.outputs._kubevirt.api import CLAIMS, VOLUMES, Cluster
from v2v.outputs._kubevirt.names import JOB_LABEL, job_label
from v2v.run import Run
from v2v.texts import clean

READY_SECONDS = 600.0  # a volume is made, bound, and a pod pulls its image and starts
DONE_SECONDS = 24 * 3600.0  # CDI converts what was sent; virtctl waits as long
GONE_SECONDS = 60.0  # what is deleted lingers until pods have ended
POLLS = (0.1, 0.2, 0.5, 1.0, 2.0)  # seconds between two looks; the last one is repeated
LOST_LOOKS = 30  # that fail one after another before the cluster counts as gone: a minute


@dataclass(frozen=True, slots=True)
class Pod:
    """What tells the pod that took an image from one that knows nothing of it."""

    restarts: int
    since: str  # when it began to run; empty if that is not told


def is_ours(obj: Object, run: Run) -> bool:
    return bool(value(obj, "metadata", "labels", JOB_LABEL) == job_label(run.job_id))


def make(cluster: Cluster, volume: Object, run: Run) -> None:
    """Create a DataVolume, unless this job has done so. TargetError when the name is taken, by a
    claim too: CDI may adopt one that is there, and take it for the filled volume."""
    name = name_of(volume)
    existing = cluster.get(VOLUMES, name)
    if existing is not None and not is_ours(existing, run):
        raise taken("volume", name, cluster)
    if existing is None:
        claim = cluster.get(CLAIMS, name)
        if claim is not None and not is_ours(claim, run):
            raise taken("persistent volume claim", name, cluster)
        cluster.create(VOLUMES, volume)


def taken(what: str, name: str, cluster: Cluster) -> TargetError:
    return TargetError(
        f"{cluster.namespace} has a {what} {name} already",
        id="target-exists",
        hint="give the guest another name with -on; names are made of small letters, digits and "
        "dashes, so that different ones may become the same",
    )


def wait_until_ready(cluster: Cluster, name: str, run: Run) -> bool:
    """Until CDI takes an image. False when it has one, from an earlier try."""

    def settled(volume: Object) -> bool | None:
        phase = text(volume, "status", "phase")
        if phase in ("UploadReady", "Succeeded"):
            return phase == "UploadReady"
        _check_healthy(volume, name, cluster)
        return None

    return _wait(cluster, name, settled, "is not ready for an image", READY_SECONDS, run)


def wait_until_filled(cluster: Cluster, name: str, pod: Pod, run: Run) -> bool:
    """Until CDI has converted what was sent. False when it failed, or `pod` was evicted: then
    another one waits for another image, or there is none for long."""
    seen = time.monotonic()

    def settled(volume: Object) -> bool | None:
        nonlocal seen
        phase, now = text(volume, "status", "phase"), time.monotonic()
        if phase == "Succeeded":
            return True
        if phase == "UploadReady":
            seen = now
        if _is_another(pod_of(volume), pod) or now - seen > READY_SECONDS:
            return False
        _check_healthy(volume, name, cluster)
        return None

    return _wait(cluster, name, settled, "does not become complete", DONE_SECONDS, run)


def pod_of(volume: Object | None) -> Pod:
    count = value(volume, "status", "restartCount")
    running = (one for one in _conditions(volume) if text(one, "type") == "Running")
    since = next((text(one, "lastTransitionTime") for one in running if _is_true(one)), "")
    return Pod(count if isinstance(count, int) else 0, since)


def _is_another(pod: Pod, before: Pod) -> bool:
    """The count alone does not tell: that of a new pod begins at zero, and CDI keeps the most."""
    later = bool(pod.since and before.since) and pod.since != before.since
    return later or pod.restarts > before.restarts


def last_words(volume: Object | None) -> str:
    """What the conditions of a volume say is wrong, if anything."""
    for kind in ("Running", "Bound", "Ready"):
        for one in _conditions(volume):
            words = text(one, "message")
            if words and text(one, "type") == kind and not _is_true(one):
                return words
    return ""


def discard(cluster: Cluster, run: Run) -> None:
    """Remove the volumes of this job, and nothing else."""
    label = f"{JOB_LABEL}={job_label(run.job_id)}"
    for kind in (VOLUMES, CLAIMS):
        for one in cluster.list(kind, labels=label):
            if is_ours(one, run):  # whatever the server makes of the selector
                cluster.delete(kind, name_of(one))
    deadline = time.monotonic() + GONE_SECONDS
    for pause in _pauses():
        left = [one for kind in (VOLUMES, CLAIMS) for one in cluster.list(kind, labels=label)]
        if not left:
            return
        if time.monotonic() > deadline:
            break
        time.sleep(pause)
    run.warn(
        f"{cluster.namespace}: the cluster has not removed yet, though it was told to: "
        + clean(", ".join(sorted({name_of(one) for one in left}))),
        id="kubevirt-lingering",
        hint=f"see whether they go: kubectl get dv,pvc -n {cluster.namespace} -l {label}",
    )


def _check_healthy(volume: Object, name: str, cluster: Cluster) -> None:
    words = last_words(volume)
    reasons = [text(one, "reason") for one in _conditions(volume)]
    if any("quota" in reason.lower() for reason in reasons):
        raise quota_error(cluster.namespace, words or "no reason is told")
    if "ErrClaimNotValid" in reasons:
        raise TargetError(
            f"CDI cannot make the volume {cluster.namespace}/{name}: {words or 'it tells no why'}",
            id="target-storage",
            hint="choose another storage class with -os, or complete its StorageProfile",
        )
    if text(volume, "status", "phase") == "Failed":
        raise TargetError(
            f"the volume {cluster.namespace}/{name} failed: {words or 'no reason is told'}",
            id="kubevirt-volume",
            hint=f"see `kubectl describe datavolume -n {cluster.namespace} {name}`",
        )


def _conditions(volume: Object | None) -> list[Object]:
    found = value(volume, "status", "conditions")
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def _wait(
    cluster: Cluster,
    name: str,
    settled: Callable[[Object], bool | None],
    trouble: str,
    seconds: float,
    run: Run,
) -> bool:
    deadline = time.monotonic() + seconds
    volume: Object | None = None
    lost = 0
    for pause in _pauses():
        try:
            volume, lost = cluster.get(VOLUMES, name), 0
        except TargetError as exc:
            lost += 1
            if exc.id != "target-unreachable" or lost > LOST_LOOKS:
                raise
        if not lost and (volume is None or not is_ours(volume, run)):
            raise TargetError(
                f"the volume {cluster.namespace}/{name} is gone, or another's by now",
                id="target-lost",
                hint="somebody removed it; discard the job, and start the migration again",
            )
        if volume is not None and not lost and (answer := settled(volume)) is not None:
            return answer
        if time.monotonic() > deadline:
            break
        run.cancel.wait(pause)
    raise TargetError(
        f"the volume {cluster.namespace}/{name} {trouble}: it is "
        f"{text(volume, 'status', 'phase') or 'not begun'}; {last_words(volume)}".rstrip("; "),
        id="kubevirt-volume",
        hint=f"see `kubectl describe datavolume -n {cluster.namespace} {name}`",
    )


def _is_true(condition: Object) -> bool:
    return text(condition, "status") == "True"


def _pauses() -> Iterator[float]:
    yield from POLLS
    while True:
        yield POLLS[-1]
