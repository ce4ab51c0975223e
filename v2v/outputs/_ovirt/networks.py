"""vNIC profiles: what network cards are plugged into."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from v2v.errors import TargetError
from v2v.outputs._ovirt.engine import Engine, shown
from v2v.outputs._ovirt.precheck import Place
from v2v.texts import clean_name
from v2v.types import Nic


@dataclass(frozen=True, slots=True)
class Profile:
    """A vNIC profile: what a network card is plugged into."""

    id: str
    name: str
    network: str


def find_profiles(engine: Engine, place: Place, nics: Sequence[Nic]) -> tuple[Profile, ...]:
    """The vNIC profile of each card: the one of its network's name, of any network's in the
    cluster, or any of the network that has the name."""
    known = _profiles(engine, place)
    return tuple(_profile(nic.network, known, place) for nic in nics)


def _profiles(engine: Engine, place: Place) -> list[Profile]:
    networks = engine.call(
        "list the cluster's networks",
        lambda s: s.clusters_service().cluster_service(place.cluster).networks_service().list(),
    )
    by_id = {one.id: one.name for one in networks}
    profiles = engine.call("list the vNIC profiles", lambda s: s.vnic_profiles_service().list())
    return [
        Profile(one.id, one.name, by_id[one.network.id])
        for one in profiles
        if one.network is not None and one.network.id in by_id
    ]


def _profile(name: str, known: Sequence[Profile], place: Place) -> Profile:
    for fits in (
        [one for one in known if one.name == name and one.network == name],
        [one for one in known if one.name == name],
        [one for one in known if one.network == name],
    ):
        if fits:
            return fits[0]
    raise TargetError(
        f"the cluster {clean_name(place.cluster_name)} has no network and no vNIC profile "
        f"{clean_name(name)}; it has: {shown(one.name for one in known)}",
        id="target-network",
        hint="say with -n, -b or --mac where to plug the network cards: --network IN:OUT, or "
        "--bridge IN:OUT for those on a bridge",
    )
