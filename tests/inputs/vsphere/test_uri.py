"""Addresses of vCenter and ESXi hosts, and names as vSphere writes them."""

from __future__ import annotations

from pathlib import Path

import pytest

from v2v.errors import SourceError, UsageError
from v2v.inputs._ssh.place import SshPlace
from v2v.inputs._vsphere.names import plain_name, store_path
from v2v.inputs._vsphere.place import VspherePlace
from v2v.inputs._vsphere.serving import folder_address, ssh_place, vmware_path
from v2v.inputs._vsphere.tls import parse_thumbprint
from v2v.inputs._vsphere.uri import read_place


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        (
            "vpx://root@vc/DC/esx1",
            VspherePlace(scheme="vpx", server="vc", user="root", path="DC/esx1"),
        ),
        (
            "vpx://administrator%40vsphere.local@vc.example:8443/My%20DC/Cl/esx1?no_verify=1",
            VspherePlace(
                scheme="vpx",
                server="vc.example",
                port=8443,
                user="administrator@vsphere.local",
                path="My DC/Cl/esx1",
                verify=False,
            ),
        ),
        (
            "VPX://DOM%5Cadm@[fd00::1]?no_verify=0&auto_answer=1",
            VspherePlace(scheme="vpx", server="fd00::1", user="DOM\\adm"),
        ),
        ("esx://esxi", VspherePlace(scheme="esx", server="esxi", user="root")),
        ("esx://a@esxi/", VspherePlace(scheme="esx", server="esxi", user="a")),
    ],
)
def test_addresses_as_libvirt_and_virt_v2v_write_them(uri: str, expected: VspherePlace) -> None:
    assert read_place(uri) == expected


def test_files_of_options_belong_to_the_place() -> None:
    place = read_place("esx://h", password_file=Path("/p"), cafile=Path("/c"), thumbprint="t")
    assert (place.password_file, place.cafile, place.thumbprint) == (Path("/p"), Path("/c"), "t")


@pytest.mark.parametrize(
    ("uri", "id", "words"),
    [
        ("gsx://host", "vsphere-uri", "VMware host"),
        ("vpx://vc/DC/esx", "vsphere-uri", "who logs in"),
        ("vpx:///DC/esx", "vsphere-uri", "VMware host"),
        ("esx://root@esxi/DC", "vsphere-uri", "vpx"),
        ("vpx://a@vc/DC?no_verify=yes", "vsphere-uri", "0 or 1"),
        ("vpx://a@vc/DC?proxy=http://p", "vsphere-uri", "proxy="),
    ],
)
def test_what_is_no_such_address(uri: str, id: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_place(uri)
    assert caught.value.id == id
    assert words in caught.value.message


@pytest.mark.parametrize(
    ("uri", "id"),
    [
        ("vpx://root:secret@vc/DC/esx", "password-in-uri"),
        ("vpx://root:1/secret@vc/DC/esx", "vsphere-uri"),  # a host "root" with the port 1
        ("esx://root:1/secret@vc", "vsphere-uri"),
    ],
)
def test_a_password_in_the_address_is_refused_and_not_shown(uri: str, id: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_place(uri)
    assert caught.value.id == id
    assert "secret" not in str(caught.value) + str(caught.value.hint)


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("web%2fblue", "web/blue"),
        ("a%5Cb %25 c", "a\\b % c"),
        ("50% [x] %41 ü", "50% [x] %41 ü"),  # nothing else is encoded
        ("%252f", "%2f"),
    ],
)
def test_names_of_the_inventory(name: str, plain: str) -> None:
    assert plain_name(name) == plain


@pytest.mark.parametrize(
    ("text", "datastores", "path"),
    [
        ("[ds1] web/web.vmdk", (), "/vmfs/volumes/ds1/web/web.vmdk"),
        ("[my ds 50% ü] a [b]/c.vmdk", (), "/vmfs/volumes/my ds 50% ü/a [b]/c.vmdk"),
        ("[a] b] web/web.vmdk", ("a", "a] b"), "/vmfs/volumes/a] b/web/web.vmdk"),
        ("[] /vmfs/volumes/5f-1/web/web.vmdk", (), "/vmfs/volumes/5f-1/web/web.vmdk"),
        ("[ds1] web//./web.vmdk", (), "/vmfs/volumes/ds1/web/web.vmdk"),
    ],
)
def test_paths_on_datastores(text: str, datastores: tuple[str, ...], path: str) -> None:
    assert store_path(text, datastores) == path


@pytest.mark.parametrize(
    "text",
    [
        "",
        "web.vmdk",
        "[ds1]",
        "[ds1] ",
        "[ds1] ../other/web.vmdk",
        "[..] etc/passwd",
        "[a/b] web.vmdk",
        "[] /etc/shadow",
        "[] /vmfs/volumes/../../etc/shadow",
        "[ds1] web/\0.vmdk",
        "[ds1] web/\n.vmdk",
    ],
)
def test_what_is_no_path_on_a_datastore(text: str) -> None:
    with pytest.raises(SourceError) as caught:
        store_path(text)
    assert caught.value.id == "vsphere-path"


def test_a_path_as_vmware_writes_it_and_as_an_address() -> None:
    path = store_path("[my ds] web [1] 100%/web.vmdk")
    assert vmware_path(path) == "[my ds] web [1] 100%/web.vmdk"
    place = read_place("vpx://a@vc:8443")
    assert folder_address(path, "F0/DC", place) == (
        "https://vc:8443/folder/web%20%5B1%5D%20100%25/web.vmdk?dcPath=F0/DC&dsName=my%20ds"
    )


@pytest.mark.parametrize("prefix", ["", "SHA1 Fingerprint=", "sha256:"])
def test_thumbprints_as_consoles_and_openssl_print_them(prefix: str) -> None:
    digits = "ab" * (20 if "1" in prefix else 32)
    colons = ":".join(digits[at : at + 2].upper() for at in range(0, len(digits), 2))
    assert parse_thumbprint(prefix + colons) == digits
    with pytest.raises(UsageError) as caught:
        parse_thumbprint(prefix + colons[:-1])
    assert caught.value.id == "tls-thumbprint"


def test_the_esxi_host_of_a_vm_is_asked_over_ssh_unless_another_is_named() -> None:
    options = SshPlace(host="", user="root")
    assert ssh_place(None, "esx1.example", options) == SshPlace(host="esx1.example", user="root")
    assert ssh_place("adm@[fd00::1]:2222", "esx1", options) == SshPlace(
        host="fd00::1", port=2222, user="adm"
    )
    assert ssh_place("esx2", "", options) == SshPlace(host="esx2", user="root")


@pytest.mark.parametrize("host", ["", "-oProxyCommand=sh", "a b"])
def test_what_the_server_calls_the_esxi_host_is_not_believed_blindly(host: str) -> None:
    with pytest.raises(SourceError) as caught:
        ssh_place(None, host, SshPlace(host=""))
    assert caught.value.id == "vsphere-ssh-host"
