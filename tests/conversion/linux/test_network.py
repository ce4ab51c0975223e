"""Names of network cards: who uses which, and who gets which."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from conversion.linux import network, nic_config, nic_pairing
from conversion.linux.nic_config import Reference
from conversion.linux.nic_pairing import Interface
from v2v.types import Nic

OLD = "00:50:56:aa:bb:cc"
NEW = "52:54:00:11:22:33"


def names(references: list[Reference]) -> list[str | None]:
    return [reference.name for reference in references]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("auto lo\niface lo inet loopback\n", []),
        ("allow-hotplug ens192\niface ens192 inet static\n address 10.0.0.2/24\n", ["ens192"]),
        ("auto eth0 eth1\niface eth0 inet dhcp\niface eth0 inet6 auto\n", ["eth0", "eth1"]),
        ("auto eth0:1\niface eth0:1 inet static\n", ["eth0"]),
        ("iface ens192.100 inet static\n", ["ens192"]),
        ("iface br0 inet dhcp\n bridge_ports ens192 ens224\n", ["ens192", "ens224"]),
        ("iface lan0 inet dhcp\n bridge_ports eth3\n", ["eth3"]),
        ("iface bond0 inet dhcp\n bond-slaves eth0 \\\n eth1\n", ["eth0", "eth1"]),
        ("iface vlan5 inet dhcp\n vlan-raw-device ens256\n", ["ens256"]),
        ("iface br0 inet manual\n bridge_ports none\n", []),
        ("# iface eth9 inet dhcp\n", []),
        ("auto dsl eth0\niface dsl inet ppp\n provider dsl\niface eth0 inet manual\n", ["eth0"]),
        ("iface he-ipv6 inet6 v4tunnel\n endpoint 10.0.0.1\n", []),
        ("iface up inet static\n bond-mode 1\niface eth0 inet manual\n bond-master up\n", ["eth0"]),
        ("auto /e*=eth\niface eth inet dhcp\n", ["eth"]),
        ("iface\nauto\n", []),
    ],
)
def test_ifupdown(text: str, expected: list[str]) -> None:
    assert names(nic_config.ifupdown(text, "f")) == expected


def test_ifupdown_sources() -> None:
    text = "source /etc/network/interfaces.d/*\nsource-directory interfaces.d\n#source /x\n"
    text += "source /a/*/*/*/*/*\n"
    assert nic_config.ifupdown_sources(text) == [
        "/etc/network/interfaces.d/*",
        "/etc/network/interfaces.d/*",
    ]


NETPLAN = f"""\
# kept
network:
  version: 2
  ethernets:
    ens160: {{dhcp4: true}}
    lan:
      match: {{macaddress: "{OLD.upper()}"}}
      set-name: ens192
    any:
      match:
        name: "eth*"
        driver: vmxnet3
    nameless:
      match:
        macaddress: 00:50:56:00:00:01
    number:
      match:
        macaddress: 52:54:00:12:34:56
    other: {{match: {{name: "em*", driver: vmxnet3}}}}
  vlans:
    vlan5: {{id: 5, link: ens160}}
"""


def test_netplan() -> None:
    assert nic_config.netplan(NETPLAN, "f") == [
        Reference("ens160", None, "f"),
        Reference("ens192", OLD, "f"),
        Reference("eth*", None, "f", glob=True),
        Reference(None, "00:50:56:00:00:01", "f"),
        Reference(None, "52:54:00:12:34:56", "f"),
        Reference("em*", None, "f", glob=True),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[",
        "network: 5",
        "network: {ethernets: [1]}",
        "a: &a [*a]",
        "!!python/object:x {}",
        "a: !!bool maybe",
        "a: !!timestamp never",
        "a: !!int ''",
    ],
)
def test_netplan_that_does_not_parse_says_nothing(text: str) -> None:
    assert nic_config.netplan(text, "f") == []


def test_a_netplan_of_merge_keys_does_not_grow() -> None:
    lines = ["a0: &a0 {x: 1}"]
    for n in range(1, 20):
        lines.append(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 10)}]}}")
    assert nic_config.netplan("\n".join(lines), "f") == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[Match]\nName=ens192\n[Network]\nDHCP=yes\n", [("ens192", None)]),
        ("[Match]\nName=ens192 ens224\n", [("ens192", None), ("ens224", None)]),
        (f"[Match]\nMACAddress={OLD}\n[Network]\n", [(None, OLD)]),
        (f"[Match]\nName=eth0\nMACAddress={OLD}\n", [("eth0", OLD)]),
        ("[Match]\nName=!lo en*\n", [("en*", None)]),
        ("[Match]\nName=br0\nKind=bridge\n", []),
        ("[Match]\nType=wlan\nName=w0\n", []),
        ("[Network]\nDHCP=yes\n", []),
        ("Name=ens192", []),
        ("[Match]\nName\n continued\n", []),
    ],
)
def test_networkd(text: str, expected: list[tuple[str | None, str | None]]) -> None:
    assert [(r.name, r.mac) for r in nic_config.networkd(text, "f")] == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[connection]\ntype=ethernet\ninterface-name=ens192\n", [("ens192", None)]),
        (
            f"[connection]\ntype=802-3-ethernet\n[802-3-ethernet]\nmac-address={OLD.upper()}\n",
            [(None, OLD)],
        ),
        ("[connection]\ntype=wifi\ninterface-name=wlan0\n", []),
        ("[connection]\ntype=ethernet\n", []),
        ("[connection]\ntype=vlan\n[vlan]\nparent=ens192\nid=5\n", [("ens192", None)]),
        ("[connection]\ntype=vlan\n[vlan]\nparent=bond0\nid=5\n", []),
    ],
)
def test_network_manager(text: str, expected: list[tuple[str | None, str | None]]) -> None:
    assert [(r.name, r.mac) for r in nic_config.network_manager(text, "f")] == expected


def test_what_files_make_is_told() -> None:
    text = "[NetDev]\nName=lan0\nKind=bridge\n"
    assert names(nic_config.netdev(text, "f")) == ["lan0"]
    text = "[connection]\ntype=bond\ninterface-name=up0\n"
    assert names(nic_config.network_manager_builds(text, "f")) == ["up0"]
    text = "[connection]\ntype=ethernet\ninterface-name=ens192\n"
    assert names(nic_config.network_manager_builds(text, "f")) == []


RULE = (
    'SUBSYSTEM=="net", ACTION=="add", DRIVERS=="?*", ATTR{address}=="%s", '
    'ATTR{dev_id}=="0x0", ATTR{type}=="1", KERNEL=="eth*", NAME="%s"\n'
)


def test_udev_rules_and_links() -> None:
    assert nic_config.udev_rules("# x\n" + RULE % (OLD, "eth0"), "f") == [
        Reference("eth0", OLD, "f")
    ]
    assert nic_config.udev_rules('KERNEL=="sda", NAME="x"\n', "f") == []
    text = f"[Match]\nMACAddress={OLD}\n[Link]\nName=lan0\n"
    assert nic_config.link(text, "f") == [Reference("lan0", OLD, "f")]
    assert nic_config.ifrename(f"eth0 mac {OLD}\n# x\n", "f") == [Reference("eth0", OLD, "f")]


def test_vmware_orders_its_cards_by_slot() -> None:
    slots = ["ens192", "ens161", "ens257", "ens160", "ens224", "ens225", "ens256", "ens193"]
    expected = ["ens160", "ens192", "ens224", "ens256", "ens161", "ens193", "ens225", "ens257"]
    assert sorted(slots, key=nic_pairing.name_order) == expected
    assert sorted(["eth10", "eth2", "eth0"], key=nic_pairing.name_order) == [
        "eth0",
        "eth2",
        "eth10",
    ]


@given(st.lists(st.from_regex(r"(ens|eth|enp|eno|en)[a-z0-9]{0,8}", fullmatch=True)))
def test_any_names_can_be_ordered(found: list[str]) -> None:
    sorted(found, key=nic_pairing.name_order)


def interface(name: str | None, mac: str | None = None) -> Interface:
    return Interface(name, mac, ("f",))


def paired(found: list[Interface], *macs: str) -> list[tuple[str | None, int]]:
    result = nic_pairing.pair(found, [Nic(mac=mac) for mac in macs])
    return [(i.name, n) for i, n in result.pairs]


def test_pairs_by_mac_first_then_in_order() -> None:
    found = [interface("ens160"), interface("ens192", OLD), interface("ens224")]
    assert paired(found, OLD, "a", "b") == [("ens192", 0), ("ens160", 1), ("ens224", 2)]
    assert paired(found, "a", "b") == [("ens160", 0), ("ens192", 1)]
    assert nic_pairing.pair(found, [Nic(mac="a")]).unpaired == (found[1], found[2])


@pytest.mark.parametrize(
    ("slot", "name"),
    [
        (160, "ens160"),
        (192, "ens192"),
        (33, "ens33"),
        (1184, "ens161"),
        (1216, "ens193"),
        (2208, "ens162"),
        (0, "ens0"),
    ],
)
def test_a_slot_names_its_card(slot: int, name: str) -> None:
    assert nic_pairing.slot_name(slot) == name


@pytest.mark.parametrize(
    ("found", "nics", "expected"),
    [
        # The second card alone is configured.
        (["ens224"], [(OLD, 192), (NEW, 224)], {"ens224": 1}),
        # The source lists its cards in another order than that of their slots.
        (["ens160", "ens192"], [(OLD, 192), (NEW, 160)], {"ens160": 1, "ens192": 0}),
        (["ens160", "ens161"], [(OLD, 1184), (NEW, 160)], {"ens160": 1, "ens161": 0}),
        # Names of another kind take the cards that are left.
        (["eth0", "ens160"], [(OLD, 160), (NEW, 192)], {"ens160": 0, "eth0": 1}),
        # No card has the slot: as without slots.
        (["ens3", "ens4"], [(OLD, 160), (NEW, 192)], {"ens3": 0, "ens4": 1}),
        (["ens256"], [(OLD, None), (NEW, 192)], {"ens256": 0}),
        (["ens192"], [(OLD, None), (NEW, 192)], {"ens192": 1}),
        (["ens192", "ens224"], [(NEW, 224)], {"ens224": 0}),
        ([], [(OLD, 160)], {}),
    ],
)
def test_pairs_by_slot_before_order(
    found: list[str], nics: list[tuple[str, int | None]], expected: dict[str, int]
) -> None:
    cards = [Nic(mac=mac, slot=slot) for mac, slot in nics]
    result = nic_pairing.pair([interface(name) for name in found], cards)
    assert {i.name: n for i, n in result.pairs} == expected
    assert {i.name for i in result.unpaired} == set(found) - set(expected)


def test_a_card_that_a_rule_names_by_its_mac_is_not_called_by_its_slot() -> None:
    found = [interface("ens160", OLD), interface("ens192", NEW)]
    cards = [Nic(mac=NEW, slot=160), Nic(mac=OLD, slot=192)]
    result = nic_pairing.pair(found, cards)
    assert {i.name: n for i, n in result.pairs} == {"ens160": 1, "ens192": 0}


@given(
    st.lists(st.sampled_from(["ens160", "ens192", "ens3", "eth0", "eth1"]), unique=True),
    st.lists(st.sampled_from([None, 3, 160, 192, 1184]), max_size=4),
)
def test_every_interface_and_every_card_is_paired_once(
    found: list[str], slots: list[int | None]
) -> None:
    result = nic_pairing.pair([interface(name) for name in found], [Nic(slot=s) for s in slots])
    names = [i.name for i, _ in result.pairs]
    assert sorted([*names, *(i.name for i in result.unpaired)]) == sorted(found)
    assert len({n for _, n in result.pairs}) == len(names) == min(len(found), len(slots))


def test_what_rules_and_links_tell_completes_what_is_used() -> None:
    used = [Reference("eth1", None, "a"), Reference("eth0", None, "a"), Reference(None, NEW, "b")]
    named = [Reference("eth0", OLD, "r"), Reference("eth1", NEW, "r"), Reference("eth9", "x", "r")]
    assert nic_pairing.interfaces(used, named) == [
        Interface("eth0", OLD, ("a",)),
        Interface("eth1", NEW, ("a", "b")),
    ]


@pytest.mark.parametrize(
    ("pattern", "name"), [("en*", None), ("e*", None), ("eth*", "eth0"), ("ens*", "ens192")]
)
def test_a_pattern_that_new_names_do_not_match_becomes_a_name(
    pattern: str, name: str | None
) -> None:
    found = nic_pairing.interfaces([Reference(pattern, None, "f", glob=True)], [])
    assert [i.name for i in found] == ([name] if name else [])


def test_edit_rules_replaces_names_and_silences_rivals() -> None:
    text = RULE % (OLD, "eth0") + RULE % ("00:50:56:00:00:99", "eth7") + 'KERNEL=="sda"\n'
    edited = network.edit_rules(text, {"eth0": NEW}, add=True)
    assert nic_config.udev_rules(edited, "") == [
        Reference("eth7", "00:50:56:00:00:99", ""),
        Reference("eth0", NEW, ""),
    ]
    silenced = network.edit_rules(text, {"eth0": NEW}, add=False)
    assert names(nic_config.udev_rules(silenced, "")) == ["eth7"]
    assert 'KERNEL=="sda"\n' in silenced
    assert network.edit_rules(silenced, {"eth0": NEW}, add=False) == silenced
    right = RULE % (NEW, "eth0")
    assert network.edit_rules(right, {"eth0": NEW}, add=False) == right


def test_replace_identity_corrects_macs_and_drivers_and_nothing_else() -> None:
    text = network.replace_identity(NETPLAN, {OLD: NEW}, "virtio_net")
    expected = NETPLAN.replace(OLD.upper(), NEW).replace("vmxnet3", "virtio_net")
    assert text == expected and yaml.safe_load(text)
    assert network.replace_identity("[Match]\nDriver=vmxnet3\n", {}, "virtio_net") == (
        "[Match]\nDriver=virtio_net\n"
    )
    assert network.replace_identity(f"mac-address={OLD.upper()}\n", {OLD: NEW}, "x") == (
        f"mac-address={NEW}\n"
    )
    other = f"# {OLD}\naddress={OLD}\nmacaddress: 00:00:00:00:00:01\n"
    assert network.replace_identity(other, {OLD: NEW}, "x") == other


def test_link_file_is_read_back_as_written() -> None:
    assert nic_config.link(network.link_file("ens192", NEW), "f") == [Reference("ens192", NEW, "f")]
    assert nic_config.udev_rules(network.rule_line("eth0", NEW), "f") == [
        Reference("eth0", NEW, "f")
    ]


@given(st.text(max_size=200))
def test_no_text_breaks_a_parser(text: str) -> None:
    for _, parse in (
        *network.SOURCES,
        *network.BUILDERS,
        *network.NAMERS,
        ("", nic_config.ifupdown),
    ):
        parse(text, "f")
