"""The vSphere simulator that other tests stand on: its API, /folder, and libvirt's driver."""

from __future__ import annotations

import http.client
import ssl
import subprocess
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.fakes.vsphere.folder import Fault
from tests.vcsim import Disk, Nic, Vcsim, vcsim

NAME = "web [1] 50% ü+&"


@pytest.fixture(scope="module")
def vc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vcsim]:
    with vcsim(tmp_path_factory.mktemp("vc")) as vc:
        yield vc


def test_pyvmomi_logs_in_and_sees_a_vm_as_it_was_made(vc: Vcsim) -> None:
    from pyVim.connect import Disconnect, SmartConnect
    from pyVmomi import vim

    vc.add_datastore("other (2) %")
    disks = [
        Disk(content=bytes(4096)),
        Disk(content=bytes(8192), controller="nvme", datastore="other (2) %"),
        Disk(controller="sata"),
    ]
    made = vc.create_vm(NAME, disks=disks, nics=[Nic()], firmware="efi", secure_boot=True)
    trusted = ssl.create_default_context(cafile=vc.cafile)
    api = SmartConnect(
        host=vc.host, port=vc.port, user=vc.user, pwd=vc.password, sslContext=trusted
    )
    vm = vim.VirtualMachine(made.api._moId, api._stub)
    devices = vm.config.hardware.device
    found = [one for one in devices if isinstance(one, vim.vm.device.VirtualDisk)]
    assert vm.name == NAME
    assert [one.capacityInBytes for one in found] == [4096, 8192, 1024 * 1024]
    assert found[1].backing.fileName == f"[other (2) %] {NAME}/{NAME}_1.vmdk"
    assert vm.config.firmware == "efi" and vm.config.bootOptions.efiSecureBootEnabled
    assert any(isinstance(one, vim.vm.device.VirtualVmxnet3) for one in devices)
    Disconnect(api)


def test_a_snapshot_moves_the_disks_and_goes_again(vc: Vcsim) -> None:
    vm = vc.create_vm("snapshots")

    def files() -> list[str]:
        return [d.backing.fileName for d in vm.api.config.hardware.device if d.key == 2000]

    vm.snapshot("one")
    vm.snapshot("two")
    assert files() == ["[datastore1] snapshots/snapshots-000002.vmdk"]
    first = vm.api.snapshot.rootSnapshotList[0]
    kept = [d.backing.fileName for d in first.snapshot.config.hardware.device if d.key == 2000]
    assert kept == ["[datastore1] snapshots/snapshots.vmdk"]
    assert (vm.folder / "snapshots-000002-delta.vmdk").read_bytes()[:4] == b"COWD"
    first.childSnapshotList[0].snapshot.Remove(removeChildren=False)
    assert files() == ["[datastore1] snapshots/snapshots-000001.vmdk"]
    vm.api.RemoveAllSnapshots()
    assert files() == ["[datastore1] snapshots/snapshots.vmdk"]
    assert not (vm.folder / "snapshots-000001.vmdk").exists()


def test_properties_power_and_settings_can_be_set(vc: Vcsim) -> None:
    vm = vc.create_vm("settings")
    vm.set("runtime.consolidationNeeded", True)
    vm.extra({"scsi0:0.ctkEnabled": "TRUE"})
    vm.power(on=True)
    assert vm.api.runtime.consolidationNeeded is True
    assert vm.api.runtime.powerState == "poweredOn"
    assert {"scsi0:0.ctkEnabled": "TRUE"}.items() <= {
        one.key: one.value for one in vm.api.config.extraConfig
    }.items()


def test_folder_gives_parts_of_files_to_who_has_logged_in(vc: Vcsim) -> None:
    content = bytes(range(256)) * 16
    vc.create_vm("folder 100%", disks=[Disk(content=content)])
    path = f"/folder/{quote('folder 100%/folder 100%-flat.vmdk')}?dcPath=DC0&dsName=datastore1"
    part = {"Range": "bytes=256-299"}
    login = {"Authorization": "Basic " + b64encode(f"{vc.user}:{vc.password}".encode()).decode()}
    assert _get(vc, path, part)[0] == 401
    status, cookie, body = _get(vc, path, part | login)
    assert (status, body) == (206, content[256:300])
    with_cookie = part | {"Cookie": cookie.split(";")[0]}
    assert _get(vc, path, with_cookie)[0] == 206
    vc.folder.faults.append(Fault(status=503))
    assert _get(vc, path, with_cookie)[0] == 503
    vc.folder.expire_sessions()
    assert _get(vc, path, with_cookie)[0] == 401


def _get(vc: Vcsim, path: str, headers: dict[str, str]) -> tuple[int, str, bytes]:
    trusted = ssl.create_default_context(cafile=vc.cafile)
    connection = http.client.HTTPSConnection(vc.host, vc.port, context=trusted)
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    found = answer.status, answer.headers.get("Set-Cookie", ""), answer.read()
    connection.close()
    return found


@pytest.mark.parametrize("esx", [False, True], ids=["vpx", "esx"])
def test_libvirt_lists_the_vms(esx: bool, tmp_path: Path, need_tool) -> None:
    virsh = need_tool("virsh")
    with vcsim(tmp_path / "vc", esx=esx) as vc:
        vc.create_vm("first")
        auth = tmp_path / "auth.conf"
        auth.write_text(
            f"[credentials-v]\nusername={vc.user}\npassword={vc.password}\n"
            f"[auth-esx-{vc.host}]\ncredentials=v\n[auth-vpx-{vc.host}]\ncredentials=v\n"
        )
        uri = vc.uri(verify=False) + f"&authfile={auth}"
        argv = [virsh, "-c", uri, "list", "--all", "--name"]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
        assert done.stdout.split() == ["first"], done.stderr
