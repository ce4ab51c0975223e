"""Finding the one VM that is meant, among all that a vCenter has."""

from __future__ import annotations

import pytest

from tests.inputs.vsphere.objects import inventory, reference
from v2v.errors import SourceError
from v2v.inputs._vsphere.inventory import arrange, find_vm
from v2v.inputs._vsphere.retrieve import Found
from v2v.inputs._vsphere.uri import read_place

UUID = "42112233-4455-6677-8899-aabbccddeeff"
ALL = inventory(
    ("vm-1", "web", ""),
    ("vm-2", "db 100%25 ü", "blue"),
    ("vm-3", "twin", ""),
    ("vm-4", "twin", "blue"),
    ("vm-5", "a%2fb", "blue"),
    vm_1=UUID,
)
PLACE = read_place("vpx://u@vc")


@pytest.mark.parametrize(
    ("word", "id"),
    [
        ("web", "vm-1"),
        ("db 100% ü", "vm-2"),
        ("db 100%25 ü", "vm-2"),
        ("a/b", "vm-5"),
        ("a%2fb", "vm-5"),
        ("/F0/DC%2f1/vm/blue/twin", "vm-4"),
        ("F0/DC/1/vm/twin", "vm-3"),
        ("/F0/DC%2f1/vm/blue/db 100%25 ü", "vm-2"),
        (UUID, "vm-1"),
        (UUID.upper().replace("-", ""), "vm-1"),
        ("vm-4", "vm-4"),
        ("moref=vm-3", "vm-3"),
    ],
)
def test_a_vm_is_named_in_many_ways(word: str, id: str) -> None:
    assert find_vm(ALL, word, PLACE).id == id


def test_it_is_known_where_a_vm_is() -> None:
    vm = find_vm(ALL, "a/b", PLACE)
    assert vm.path == "/F0/DC%2f1/vm/blue/a%2fb"
    assert (vm.datacenter, vm.host) == ("F0/DC%2f1", "esx1")
    assert vm.hosts == ("F0", "DC/1", "Cl", "esx1")


@pytest.mark.parametrize(
    "path", ["F0", "F0/DC%252f1", "F0/DC%252f1/Cl", "F0/DC%252f1/Cl/esx1", "/F0/"]
)
def test_the_address_limits_where_is_looked(path: str) -> None:
    assert find_vm(ALL, "web", read_place(f"vpx://u@vc/{path}")).id == "vm-1"


def test_a_vm_elsewhere_is_told_with_its_place() -> None:
    with pytest.raises(SourceError) as caught:
        find_vm(ALL, "web", read_place("vpx://u@vc/F0/Other/esx9"))
    assert caught.value.id == "vsphere-vm-unknown"
    assert "F0/DC/1/Cl/esx1" in caught.value.message


def test_an_unknown_vm_is_told_with_one_of_a_like_name() -> None:
    with pytest.raises(SourceError) as caught:
        find_vm(ALL, "webb", PLACE)
    assert caught.value.id == "vsphere-vm-unknown"
    assert "did you mean web?" in str(caught.value.hint)


def test_nothing_is_there_at_all() -> None:
    with pytest.raises(SourceError) as caught:
        find_vm(inventory(), "web", PLACE)
    assert "none to this user" in str(caught.value.hint)


def test_two_vms_of_a_name_are_told_apart_by_paths_and_references() -> None:
    with pytest.raises(SourceError) as caught:
        find_vm(ALL, "twin", PLACE)
    assert caught.value.id == "vsphere-vm-ambiguous"
    for words in ("/F0/DC%2f1/vm/twin (moref=vm-3)", "/F0/DC%2f1/vm/blue/twin (moref=vm-4)"):
        assert words in str(caught.value.hint)


def test_a_vm_that_is_called_like_the_reference_of_another_is_not_taken_for_it() -> None:
    both = inventory(("vm-1", "web", ""), ("vm-666", "vm-1", "blue"))
    with pytest.raises(SourceError) as caught:
        find_vm(both, "vm-1", PLACE)
    assert caught.value.id == "vsphere-vm-ambiguous"
    assert find_vm(both, "moref=vm-1", PLACE).name == "web"
    assert find_vm(both, "/F0/DC%2f1/vm/blue/vm-1", PLACE).id == "vm-666"


def test_networks_have_their_names() -> None:
    assert ALL.networks == {"dvportgroup-7": "Prod/1"}


def test_a_vm_of_a_vapp_is_where_that_is() -> None:
    """The vApp's own parent is a pool of resources, and not in a datacenter's folders."""
    app = {"name": "app", "parent": reference("ResourcePool", "pool")}
    app |= {"parentFolder": reference("Folder", "vms")}
    nested = {"name": "inner", "parent": reference("VirtualApp", "app")}
    vm = {"name": "web", "parentVApp": reference("VirtualApp", "inner")}
    every = arrange(
        [
            Found("dc", "Datacenter", {"name": "DC"}),
            Found("vms", "Folder", {"name": "vm", "parent": reference("Datacenter", "dc")}),
            Found("app", "VirtualApp", app),
            Found("inner", "VirtualApp", nested),
            Found("vm-1", "VirtualMachine", vm),
        ]
    )
    found = find_vm(every, "/DC/vm/app/inner/web", PLACE)
    assert (found.id, found.datacenter) == ("vm-1", "DC")


def test_a_vm_in_a_folder_that_the_user_may_not_see_is_in_its_hosts_datacenter() -> None:
    vm = {"name": "web", "parent": reference("Folder", "hidden")}
    vm |= {"runtime.host": reference("HostSystem", "esx1")}
    every = arrange(
        [
            Found("dc", "Datacenter", {"name": "DC"}),
            Found("hosts", "Folder", {"name": "host", "parent": reference("Datacenter", "dc")}),
            Found("esx1", "HostSystem", {"name": "esx1", "parent": reference("Folder", "hosts")}),
            Found("vm-1", "VirtualMachine", vm),
        ]
    )
    assert find_vm(every, "web", PLACE).datacenter == "DC"
