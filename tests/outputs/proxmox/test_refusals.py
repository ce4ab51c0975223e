"""What is refused before anything is copied, and in which words."""

from __future__ import annotations

import os
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from tests.contract.output_suite import GUEST
from tests.fakes.proxmox import Storage
from tests.fakes.vsphere.certificates import certificate
from tests.proxmox_host import Host
from v2v.errors import TargetError, UsageError, V2VError
from v2v.types import BlockBus, GiB, Machine, Nic, Source

SECRET = "t0ken-secret"


@pytest.fixture
def refused(host: Host, source: Source, run):
    """The error that check_source raises, after which nothing is at the target."""

    def look(**words: str) -> V2VError:
        with pytest.raises(V2VError) as error:
            host.output(**words).check_source(source, run)
        assert not host.server.vms
        assert host.server.passwords["root@pam"] not in f"{error.value}{error.value.hint}"
        return error.value

    return look


def with_token(host: Host, **more: str) -> dict[str, str]:
    host.server.tokens["mover@pve!v2v"] = SECRET
    host.password.write_text(SECRET)
    address = host.server.address.replace("root@pam", "mover@pve")
    return {"-oc": address, "-oo token-id": "v2v", **more}


# Words ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flag", "word", "id"),
    [
        ("-oc", "http://root@pam@host:8006", "uri-invalid"),
        ("-oc", "pve", "uri-invalid"),
        ("-oc", "https://root@host", "uri-invalid"),
        ("-oc", "https://root@pam@host/api2", "uri-invalid"),
        ("-oc", "https://root@pam:secret@host", "password-in-uri"),
        ("-oo vmid", "99", "option-value"),
        ("-oo vmid", "x", "option-value"),
        ("-oo cpu", "host,flags=+x", "option-value"),
        ("-oo token-id", "root@pam!x=y", "option-value"),
        ("-oo fingerprint", "AA:BB", "tls-thumbprint"),
        ("-oo cafile", "/none", "tls-files"),
        ("-oo verifypeer", "false", "option-conflict"),
    ],
)
def test_words_that_cannot_be_right(host, source, run, flag: str, word: str, id: str) -> None:
    with pytest.raises(UsageError) as error:
        more = {"-oo cafile": None} if flag == "-oo fingerprint" else {}
        host.output(**{flag: word, **more}).check_source(source, run)
    assert error.value.id == id
    assert host.server.requests == []


def test_a_cafile_without_certificates(host, refused) -> None:
    assert refused(**{"-oo cafile": str(host.password)}).id == "tls-files"


# The server -------------------------------------------------------------------------------------


def test_nobody_answers(refused) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        error = refused(**{"-oc": f"https://root@pam@127.0.0.1:{closed.getsockname()[1]}"})
    assert error.id == "target-unreachable"
    assert "Connection refused" in error.message


def test_an_untrusted_certificate_is_shown(host, refused) -> None:
    error = refused(**{"-oo cafile": None})
    assert error.id == "target-untrusted"
    assert host.certificate.thumbprint() in error.message
    assert "-oo fingerprint" in (error.hint or "")
    assert host.server.requests == []


def test_another_authority(host, tmp_path, refused) -> None:
    other = certificate(tmp_path, name="other")
    assert refused(**{"-oo cafile": str(other.cafile)}).id == "target-untrusted"
    assert host.server.requests == []


def test_a_fingerprint_in_place_of_an_authority(host, source, run) -> None:
    for form in (host.certificate.thumbprint(), f"sha256 {host.certificate.thumbprint()}".lower()):
        seen = form.removeprefix("sha256 ")
        output = host.output(**{"-oo cafile": None, "-oo fingerprint": seen})
        output.check_source(source, run)


def test_another_fingerprint(host, refused) -> None:
    error = refused(**{"-oo cafile": None, "-oo fingerprint": "ab" * 32})
    assert error.id == "target-untrusted"
    assert host.certificate.thumbprint() in error.message
    assert host.server.requests == []


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
def test_no_verification_if_asked_for(host, source, run) -> None:
    output = host.output(**{"-oo cafile": None, "-oo verifypeer": "false"})
    output.check_source(source, run)


def test_a_wrong_password(host, refused) -> None:
    host.password.write_text("wr0ng\n")
    error = refused()
    assert error.id == "target-login"
    assert "root@pam at 127.0.0.1" in error.message
    assert "wr0ng" not in f"{error}{error.hint}"


def test_no_password(host, refused, monkeypatch) -> None:
    monkeypatch.setattr("v2v.password.TERMINAL", Path("/none"))
    assert refused(**{"-op": None}).id == "target-login"


def test_a_second_factor(host, refused) -> None:
    host.server.passwords["tfa@pve"] = host.server.passwords["root@pam"]
    error = refused(**{"-oc": host.server.address.replace("root@pam", "tfa@pve")})
    assert error.id == "target-login"
    assert "API token" in error.message


def test_a_wrong_token(host, refused) -> None:
    words = with_token(host)
    host.password.write_text("wr0ng\n")
    error = refused(**words)
    assert error.id == "target-login"
    assert "mover@pve!v2v" in error.message
    assert "wr0ng" not in f"{error}{error.hint}"


@pytest.mark.parametrize("secret", ["s3cr et", "s3cr\u20acet"])
def test_a_secret_that_no_token_has_is_not_shown(host, refused, secret: str) -> None:
    words = with_token(host)
    host.password.write_text(secret)
    error = refused(**words)
    assert error.id == "target-login"
    assert "s3cr" not in f"{error}{error.hint}"
    assert host.server.requests == []


def test_a_token_will_do(host, source, run) -> None:
    host.output(**with_token(host)).check_source(source, run)


def test_a_token_that_is_named_beside_its_secret(host, source, run) -> None:
    with_token(host)
    host.password.write_text(f"mover@pve!v2v={SECRET}\n")
    host.output().check_source(source, run)
    assert "POST access/ticket" not in host.server.requests


def test_a_wrong_token_beside_its_name_is_not_shown(host, refused) -> None:
    host.password.write_text("mover@pve!v2v=wr0ng\n")
    error = refused()
    assert error.id == "target-login"
    assert "mover@pve!v2v" in error.message
    assert "wr0ng" not in f"{error}{error.hint}"


@pytest.mark.parametrize(
    ("path", "privilege"),
    [
        ("/storage/local", "Datastore.Allocate"),
        ("/storage/local", "Datastore.AllocateTemplate"),
        ("/storage/local", "Datastore.AllocateSpace"),
        ("/vms", "VM.Config.HWType"),
        ("/vms", "VM.PowerMgmt"),
    ],
)
def test_a_privilege_that_is_missing_is_named(host, refused, path: str, privilege: str) -> None:
    host.server.faults.missing.add((path, privilege))
    error = refused(**with_token(host, **{"--start": ""}))
    assert error.id == "target-forbidden"
    assert privilege in error.message
    assert path in error.message


@pytest.mark.parametrize(("network", "path"), [("vmbr0", "vmbr0"), ("vmbr0.42", "vmbr0/42")])
def test_a_bridge_that_may_not_be_used(host, source, run, network: str, path: str) -> None:
    host.server.faults.missing.add((f"/sdn/zones/localnetwork/{path}", "SDN.Use"))
    cards = replace(source, nics=(Nic(network=network),))
    with pytest.raises(TargetError) as error:
        host.output(**with_token(host)).check_source(cards, run)
    assert error.value.id == "target-forbidden"
    assert f"SDN.Use on /sdn/zones/localnetwork/{path}" in error.value.message


def test_a_vnet_does_not_tell_its_zone(host, source, run) -> None:
    host.server.bridges.append("vnet1")
    host.server.faults.missing.add(("/sdn/zones/localnetwork/vnet1", "SDN.Use"))
    host.output(**with_token(host)).check_source(replace(source, nics=(Nic(network="vnet1"),)), run)


def test_a_server_that_is_no_proxmox(host, refused) -> None:
    host.server.faults.answers["nodes"] = b"<html>hello</html>"
    assert refused().id == "target-answer"
    host.server.faults.answers["nodes"] = b'{"data": [{"name": 1}]}'
    assert refused().id == "target-answer"


def test_an_answer_without_end(host, refused, monkeypatch) -> None:
    from v2v.outputs._proxmox import session

    monkeypatch.setattr(session, "MAX_ANSWER", 1000)
    host.server.faults.answers["nodes"] = b'{"data": []}' + b" " * 2000
    error = refused()
    assert error.id == "target-unreachable"
    assert "more than 1000 bytes" in error.message


def test_a_server_that_is_too_old(host, refused) -> None:
    host.server.version = "8.3.5"
    error = refused()
    assert error.id == "target-old"
    assert "8.3.5" in error.message
    assert "8.4" in (error.hint or "")


def test_a_redirection_is_not_followed(host, refused) -> None:
    """It would be given the password."""
    host.server.faults.redirect = "https://127.0.0.1:1/"
    assert refused().id == "target-unreachable"
    assert len(host.server.requests) == 1


# Nodes, storages, networks ----------------------------------------------------------------------


def test_a_node_must_be_chosen_among_several(host, refused, source, run) -> None:
    host.server.nodes["pve2"] = "online"
    error = refused()
    assert error.id == "option-required"
    assert "pve1, pve2" in (error.hint or "")
    host.output(**{"-oo node": "pve2"}).check_source(source, run)


def test_an_unknown_node(refused) -> None:
    error = refused(**{"-oo node": "pve9"})
    assert error.id == "target-node"
    assert "pve1" in (error.hint or "")


def test_a_node_that_is_off(host, refused) -> None:
    host.server.nodes["pve2"] = "offline"
    error = refused(**{"-oo node": "pve2"})
    assert error.id == "target-node"
    assert "offline" in error.message


def test_an_unknown_storage(refused) -> None:
    error = refused(**{"-os": "nas"})
    assert error.id == "target-storage"
    assert "local" in (error.hint or "")


@pytest.mark.parametrize("fault", ["enabled", "active"])
def test_a_storage_that_is_disabled_or_away(host, refused, tmp_path, fault: str) -> None:
    host.server.storages["nas"] = Storage(tmp_path / "nas")
    setattr(host.server.storages["nas"], fault, 0)
    assert refused(**{"-os": "nas"}).id == "target-storage"
    assert refused(**{"-oo import-storage": "nas"}).id == "target-storage"


def test_a_storage_without_images(host, refused, tmp_path) -> None:
    host.server.storages["isos"] = Storage(tmp_path / "isos", content="iso,backup")
    error = refused(**{"-os": "isos"})
    assert error.id == "target-storage"
    assert "takes no new disks" in error.message


def test_no_storage_takes_imports(host, refused) -> None:
    host.server.storages["local"].content = "images,iso,vztmpl"
    error = refused()
    assert error.id == "target-storage"
    assert "no storage takes images" in error.message
    assert "pvesm set local --content images,iso,vztmpl,import" in (error.hint or "")


def test_the_command_for_imports_takes_no_content_away(host, refused, tmp_path) -> None:
    """What `pvesm set --content` does not name is gone; and a storage of blocks takes no files."""
    host.server.storages["local"].content = "images"
    host.server.storages["thin"] = Storage(tmp_path / "thin", type="lvmthin", content="images")
    assert "pvesm set local --content images,import" in (refused(**{"-os": "thin"}).hint or "")
    host.server.storages["local"].type = "zfspool"
    assert "add one" in (refused(**{"-os": "thin"}).hint or "")


def test_a_storage_of_esxi_takes_no_images_that_are_sent(host, refused, tmp_path) -> None:
    """It is where the server itself would import VMs from."""
    host.server.storages["local"].content = "images,iso"
    host.server.storages["esx"] = Storage(tmp_path / "esx", type="esxi", content="import")
    assert "pvesm set local" in (refused().hint or "")
    error = refused(**{"-oo import-storage": "esx"})
    assert error.id == "target-storage" and "esx" in error.message
    assert "pvesm set local" in (error.hint or "")


def test_a_storage_whose_volumes_others_make(host, refused, tmp_path) -> None:
    host.server.storages["san"] = Storage(tmp_path / "san", type="iscsi", content="images")
    assert refused(**{"-os": "san"}).id == "target-storage"


def test_a_storage_of_a_disk_alone(host, source, run) -> None:
    disks = (source.disks[0], replace(source.disks[1], target_storage="nas"))
    with pytest.raises(TargetError) as error:
        host.output().check_source(replace(source, disks=disks), run)
    assert error.value.id == "target-storage"
    assert "nas" in error.value.message


@pytest.mark.parametrize("which", ["target", "import"])
@pytest.mark.parametrize("type", ["dir", "lvm"])
def test_not_enough_space(host, source, run, tmp_path, which: str, type: str) -> None:
    """Volumes of LVM take the whole size."""
    small = Storage(tmp_path / "small", avail=5 * GiB, type=type)
    if which == "target":
        small.content = "images"
    host.server.storages["small"] = small
    flag = "-os" if which == "target" else "-oo import-storage"
    output = host.output(**{flag: "small"})
    output.check_source(source, run)
    sizes = [4 * GiB, 4 * GiB]
    if type == "dir":
        output.check_sizes(sizes, [GiB, GiB], run)
        sizes = [8 * GiB, 8 * GiB]
    with pytest.raises(TargetError) as error:
        output.check_sizes(sizes, [3 * GiB, 3 * GiB], run)
    assert error.value.id == "target-space"
    assert "small" in error.value.message


def test_a_size_that_is_no_whole_number_of_sectors(host, source, run) -> None:
    output = host.output()
    output.check_source(source, run)
    with pytest.raises(TargetError) as error:
        output.check_sizes([GiB + 1, GiB], [0, 0], run)
    assert error.value.id == "target-disk-size"


def test_a_bridge_that_is_not_there(host, source, run) -> None:
    cards = replace(source, nics=(Nic(network="VM Network"),))
    with pytest.raises(TargetError) as error:
        host.output().check_source(cards, run)
    assert error.value.id == "target-network"
    assert "--network 'VM Network:BRIDGE'" in (error.value.hint or "")
    assert "vmbr0" in (error.value.hint or "")


# The VM -----------------------------------------------------------------------------------------


def test_a_number_that_is_taken(host, source, run) -> None:
    host.server.vms[105] = {"name": "mail"}
    with pytest.raises(TargetError) as error:
        host.output(**{"-oo vmid": "105"}).check_source(source, run)
    assert error.value.id == "target-exists"


def test_a_name_that_is_taken(host, source, run) -> None:
    host.server.vms[105] = {"name": "WEB"}
    with pytest.raises(TargetError) as error:
        host.output().check_source(source, run)
    assert error.value.id == "target-exists"
    assert "105" in error.value.message
    assert "-on" in (error.value.hint or "")


def test_too_many_disks(host, source, run) -> None:
    with pytest.raises(TargetError) as error:
        host.output().check_source(replace(source, disks=source.disks * 16), run)
    assert error.value.id == "target-disk-count"


@pytest.mark.parametrize(
    ("bus", "machine", "most"),
    [
        (BlockBus.VIRTIO_BLK, Machine.Q35, 16),
        (BlockBus.VIRTIO_SCSI, Machine.Q35, 31),
        (BlockBus.SATA, Machine.Q35, 6),
        (BlockBus.IDE, Machine.I440FX, 4),
        (BlockBus.IDE, Machine.Q35, 6),
    ],
)
def test_more_disks_than_the_bus_takes(host, source, run, bus, machine, most: int) -> None:
    guest = replace(GUEST, caps=replace(GUEST.caps, block_bus=bus, machine=machine))
    output = host.output()
    output.check_source(replace(source, disks=source.disks[:1] * most), run)
    output.check_guest(guest, run)
    output.check_source(replace(source, disks=source.disks[:1] * min(most + 1, 31)), run)
    if most < 31:
        with pytest.raises(TargetError) as error:
            output.check_guest(guest, run)
        assert error.value.id == "target-disk-count"


def test_too_many_cards(host, source, run) -> None:
    with pytest.raises(TargetError) as error:
        host.output().check_source(replace(source, nics=(Nic(),) * 33), run)
    assert error.value.id == "target-nic-count"


def test_another_architecture(host, source, run) -> None:
    guest = replace(GUEST, caps=replace(GUEST.caps, arch="aarch64"))
    output = host.output()
    output.check_source(source, run)
    with pytest.raises(TargetError) as error:
        output.check_guest(guest, run)
    assert error.value.id == "target-arch"


def test_a_folder_for_staging_that_is_not_there(host, refused) -> None:
    assert refused(**{"-oo staging": "/none/here"}).id == "target-folder"


def test_on_the_node_itself_no_storage_for_imports_is_needed(
    host, source, run, tmp_path, monkeypatch
) -> None:
    if os.geteuid():
        pytest.skip("only root may name files to the server")
    from v2v.outputs._proxmox import uploads

    here = tmp_path / "node"
    here.symlink_to("nodes/pve1")
    monkeypatch.setattr(uploads, "LOCAL_NODE", here)
    host.server.storages["local"].content = "images"
    host.output().check_source(source, run)
    with pytest.raises(TargetError):  # of a raw image the server would guess the format
        host.output(**{"-of": "raw"}).check_source(source, run)
