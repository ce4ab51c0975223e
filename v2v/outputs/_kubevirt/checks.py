"""What a cluster is asked before anything expensive begins."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence

from v2v.errors import TargetError
from v2v.outputs._kubevirt import Object, volumes
from v2v.outputs._kubevirt.answers import name_of, quota_error, value
from v2v.outputs._kubevirt.api import (
    CLAIMS,
    MACHINES,
    NETWORKS,
    PROFILES,
    QUOTAS,
    STORAGE_CLASSES,
    TOKENS,
    VOLUMES,
    Cluster,
    Kind,
)
from v2v.outputs._kubevirt.manifest import VOLUME_UNIT
from v2v.outputs._kubevirt.networks import Attachment
from v2v.run import Run
from v2v.texts import size_text

NEEDED = (("KubeVirt", MACHINES), ("CDI", VOLUMES), ("CDI's upload", TOKENS))
DEFAULT_CLASS = (
    "storageclass.kubevirt.io/is-default-virt-class",
    "storageclass.kubernetes.io/is-default-class",
)
UNITS: dict[str, int] = {
    "": 1,
    **{letter: 1000**power for power, letter in enumerate("kMGTPE", 1)},
    **{f"{letter}i": 1024**power for power, letter in enumerate("KMGTPE", 1)},
}


def check_installed(cluster: Cluster) -> None:
    groups = cluster.groups()
    for name, kind in NEEDED:
        if kind.group not in groups:
            raise TargetError(
                f"{cluster.server} has no {name}: there is no API {kind.group}",
                id="kubevirt-missing",
                hint="KubeVirt and CDI (the containerized data importer) must be installed; "
                "-os FOLDER without a cluster writes files",
            )
    if not cluster.namespace_exists():
        raise TargetError(
            f"{cluster.server} has no namespace {cluster.namespace}",
            id="kubevirt-namespace",
            hint=f"`kubectl create namespace {cluster.namespace}` makes it, -oo namespace names "
            "another",
        )


def check_rights(cluster: Cluster) -> None:
    """What is needed to make the VM, and to take back what was made."""
    for verb, kind in (*(("create", kind) for _, kind in NEEDED), ("delete", VOLUMES)):
        if not cluster.may(verb, kind):
            raise TargetError(
                f"{cluster.server}: no right to {verb} {kind.plural}.{kind.group} in the "
                f"namespace {cluster.namespace}",
                id="target-forbidden",
                hint="the ClusterRoles kubevirt.io:edit and cdi.kubevirt.io:edit, bound there, "
                "give it",
            )


def check_storage(cluster: Cluster, classes: Collection[str | None]) -> None:
    """None stands for the cluster's default."""
    known = _unless_forbidden(cluster, STORAGE_CLASSES)
    if known is None:
        return
    names = sorted(name_of(one) for one in known)
    for wanted in classes:
        if wanted is None and not _defaults(known):
            raise TargetError(
                f"{cluster.server} has no default storage class",
                id="target-storage",
                hint=f"-os CLASS names one of: {', '.join(names)}",
            )
        if wanted is not None and wanted not in names:
            raise TargetError(
                f"{cluster.server} has no storage class {wanted}",
                id="target-storage",
                hint=f"it has: {', '.join(names)}",
            )
        meant = [wanted] if wanted else _defaults(known)
        if len(meant) == 1:
            _check_profile(cluster, meant[0])


def _check_profile(cluster: Cluster, storage_class: str) -> None:
    """CDI makes no volume of a class of which it knows no access mode: it waits for one."""
    try:
        profile = cluster.get(PROFILES, storage_class)
    except TargetError as exc:
        if exc.id != "target-forbidden":
            raise
        return
    sets = value(profile, "status", "claimPropertySets")
    known = isinstance(sets, list) and any(value(one, "accessModes") for one in sets)
    if profile is not None and not known:
        raise TargetError(
            f"CDI knows no access mode of the storage class {storage_class}, and makes no volumes "
            "of it",
            id="target-storage",
            hint=f"kubectl patch storageprofile {storage_class} --type=merge -p "
            """'{"spec":{"claimPropertySets":[{"accessModes":["ReadWriteOnce"],"volumeMode":"""
            """"Filesystem"}]}}'; or choose another class with -os""",
        )


def check_names(cluster: Cluster, name: str, disks: Sequence[str], run: Run) -> None:
    wanted: list[tuple[str, Kind, str]] = [("virtual machine", MACHINES, name)]
    wanted += [("volume", VOLUMES, disk) for disk in disks]
    wanted += [("persistent volume claim", CLAIMS, disk) for disk in disks]
    ours = set()  # names: old CDI does not give a volume's claim the volume's labels
    for what, kind, one in wanted:
        existing = cluster.get(kind, one)
        if existing is None or (kind is CLAIMS and one in ours):
            continue
        if not volumes.is_ours(existing, run):
            raise volumes.taken(what, one, cluster)
        ours.add(one)


def check_networks(cluster: Cluster, cards: Iterable[Attachment]) -> None:
    for name in {card.multus for card in cards if card.multus}:
        namespace, _, definition = name.rpartition("/")
        try:
            found = cluster.get(NETWORKS, definition, namespace=namespace or None)
        except TargetError as exc:
            if exc.id != "target-forbidden":
                raise
            continue
        if found is None:
            raise TargetError(
                f"{cluster.server}: the namespace {namespace or cluster.namespace} has no "
                f"NetworkAttachmentDefinition {definition}",
                id="target-network",
                hint="`kubectl get network-attachment-definitions -A` lists them; "
                "--network IN:NAMESPACE/NAME chooses one, --network IN:pod the pod network",
            )


def check_quota(cluster: Cluster, sizes: Sequence[int]) -> None:
    """What the cluster would tell only when the volumes are made."""
    asked = {
        "requests.storage": sum(-(-size // VOLUME_UNIT) * VOLUME_UNIT for size in sizes),
        "persistentvolumeclaims": len(sizes),
    }
    for quota in _unless_forbidden(cluster, QUOTAS) or []:
        for what, limit, used in _limits(quota):
            if what in asked and used + asked[what] > limit:
                raise quota_error(
                    cluster.namespace,
                    f"{name_of(quota)} has {_shown(what, max(limit - used, 0))} of {what} left, "
                    f"the disks need {_shown(what, asked[what])}",
                )


def check_machine(cluster: Cluster, machine: Object) -> None:
    """What KubeVirt and the cluster's policies would refuse only when all is copied."""
    try:
        cluster.create(MACHINES, machine, dry_run=True)
    except TargetError as exc:
        # Some webhook may know no dry runs; and on resume the VM may be there.
        if exc.id != "target-exists" and "not support dry run" not in exc.message:
            raise


def quantity(text: object) -> int | None:
    """Kubernetes' numbers: 10Gi, 500M, 3. None for what is none."""
    match = re.fullmatch(r"([0-9]{1,30})([A-Za-z]{0,2})", str(text))
    if match is None or match[2] not in UNITS:
        return None
    return int(match[1]) * UNITS[match[2]]


def _limits(quota: object) -> Iterator[tuple[str, int, int]]:
    hard = value(quota, "status", "hard")
    for what, word in (hard if isinstance(hard, dict) else {}).items():
        limit, used = quantity(word), quantity(value(quota, "status", "used", what) or "0")
        if limit is not None and used is not None:
            yield str(what), limit, used


def _shown(what: str, number: int) -> str:
    return size_text(number) if what == "requests.storage" else str(number)


def _defaults(classes: Sequence[Object]) -> list[str]:
    """The classes that count as the default; one for VMs alone wins."""
    for key in DEFAULT_CLASS:
        marked = [one for one in classes if value(one, "metadata", "annotations", key) == "true"]
        if marked:
            return [name_of(one) for one in marked]
    return []


def _unless_forbidden(cluster: Cluster, kind: Kind) -> list[Object] | None:
    """None where it is not ours to know: the cluster itself will tell."""
    try:
        return cluster.list(kind)
    except TargetError as exc:
        if exc.id != "target-forbidden":
            raise
        return None
