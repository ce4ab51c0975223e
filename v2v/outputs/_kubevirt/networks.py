"""Where network cards go: the pod network, or networks of Multus."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from v2v.errors import TargetError
from v2v.outputs._kubevirt.names import LABEL, SUBDOMAIN
from v2v.texts import clean_name
from v2v.types import Nic

POD = "pod"
DEFAULT = "default"  # what cards are on of which the source tells nothing; libvirt's own network


@dataclass(frozen=True, slots=True)
class Attachment:
    """One card; `multus` names a NetworkAttachmentDefinition ([NAMESPACE/]NAME), or None: pod."""

    nic: Nic
    multus: str | None
    unmapped: bool = False  # the source's name of its network can be none of the cluster's


def attach(nics: Sequence[Nic]) -> tuple[Attachment, ...]:
    """TargetError when more than one would be on the pod network, which KubeVirt refuses."""
    found = tuple(_attach(nic) for nic in nics)
    pods = [clean_name(one.nic.network) for one in found if one.multus is None]
    if len(pods) > 1:
        raise TargetError(
            f"-o kubevirt: one network card can be on the pod network, {len(pods)} would be: "
            f"those on {', '.join(pods)}",
            id="target-network",
            hint="put the others on networks of the cluster: --network IN:NAMESPACE/NAME, or "
            "--mac MAC:network:NAMESPACE/NAME, where NAME is a NetworkAttachmentDefinition",
        )
    return found


def _attach(nic: Nic) -> Attachment:
    if nic.network in (POD, DEFAULT):
        return Attachment(nic, None)
    if is_definition(nic.network):
        return Attachment(nic, nic.network)
    return Attachment(nic, None, unmapped=True)


def is_definition(network: str) -> bool:
    """Whether a NetworkAttachmentDefinition can be called so."""
    namespace, slash, name = network.rpartition("/")
    return bool(SUBDOMAIN.fullmatch(name)) and (not slash or bool(LABEL.fullmatch(namespace)))


def is_zone(text: str) -> bool:
    """Whether it looks like the name of a time zone: Europe/Berlin."""
    return bool(re.fullmatch(r"[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+){0,2}", text))
