"""A vCenter or an ESXi host for tests: govmomi's simulator behind a front of our own.

    with vcsim(tmp_path / "vc") as vc:                     # esx=True: an ESXi host
        vc.create_vm("web 1", disks=[Disk(content=b"...")])
        vc.host, vc.port, vc.user, vc.password_file, vc.cafile, vc.thumbprint("sha256")
        vc.uri("vpx")                                      # vpx://user@127.0.0.1:PORT/DC0/DC0_H0

The API is what govmomi's simulator answers: login, inventory, CreateVM, ReconfigVM, power,
snapshots (a snapshot moves the VM's disks to NAME-000001.vmdk, as real ones do), tasks, the
datastore browser. `vc.api()` is a pyvmomi connection past the front; change there whatever there
is no helper for. `Vm.set("runtime.consolidationNeeded", True)` and other properties too.

/folder is our own: `vc.folder` (see tests/fakes/vsphere/folder.py) tells what was asked for, ends
sessions, and does wrong what a test wants; `vc.front` drops connections, and takes another
certificate. A slow or unreliable wire: tests/fakes/tcp_proxy.py to `vc.port`.

In the vCenter: datacenter DC0 with host DC0_H0 and cluster DC0_C0 of three hosts, no VMs. In the
ESXi host: ha-datacenter, localhost.localdomain. Datastores: "datastore1", on every host, and what
`add_datastore` adds. The simulator starts with this block and ends with this process.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from fixtures import cache
from tests.fakes.vsphere.certificates import Certificate, certificate
from tests.fakes.vsphere.folder import Folder
from tests.fakes.vsphere.proxy import Front, serve_front

USER = "administrator@vsphere.local"
PASSWORD = "it's a <secret> & 100% ünïque"
DATASTORE = "datastore1"
SOURCE = Path(__file__).parent / "fakes" / "vsphere" / "main.go"
BUILD_SECONDS = 300.0
KIB = 1024

CONTROLLERS = {  # by the names that -i vmx files use; the key's hundreds as vSphere gives them
    "pvscsi": ("ParaVirtualSCSIController", 1000),
    "lsilogic": ("VirtualLsiLogicController", 1000),
    "lsisas1068": ("VirtualLsiLogicSASController", 1000),
    "buslogic": ("VirtualBusLogicController", 1000),
    "sata": ("VirtualAHCIController", 15000),
    "nvme": ("VirtualNVMEController", 31000),
    "ide": ("VirtualIDEController", 200),
}
NICS = {"vmxnet3": "VirtualVmxnet3", "e1000e": "VirtualE1000e", "e1000": "VirtualE1000"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    content: bytes | Path = bytes(1024 * KIB)  # or a raw image; whole KiB
    controller: str = "pvscsi"  # see CONTROLLERS
    datastore: str = DATASTORE
    name: str = ""  # of the descriptor; else VM.vmdk, VM_1.vmdk, ...
    mode: str = "persistent"


@dataclass(frozen=True, slots=True, kw_only=True)
class Nic:
    model: str = "vmxnet3"
    network: str = "VM Network"
    mac: str = "00:50:56:01:02:03"


@dataclass(frozen=True, slots=True)
class Vm:
    name: str
    api: Any  # vim.VirtualMachine
    folder: Path  # of its files, in the first datastore

    def power(self, *, on: bool) -> None:
        _done(self.api.PowerOn() if on else self.api.PowerOff())

    def snapshot(self, name: str = "snap") -> None:
        _done(self.api.CreateSnapshot(name, "", memory=False, quiesce=False))

    def set(self, path: str, value: object) -> None:
        """Any property that is a text, a number or a truth: runtime.consolidationNeeded."""
        self.extra({f"SET.{path}": value})

    def extra(self, values: dict[str, Any]) -> None:
        """Settings as a VMX file has them (config.extraConfig)."""
        from pyVmomi import vim

        options = [vim.option.OptionValue(key=key, value=value) for key, value in values.items()]
        _done(self.api.Reconfigure(vim.vm.ConfigSpec(extraConfig=options)))


@dataclass(frozen=True, slots=True)
class Vcsim:
    front: Front
    folder: Folder
    certificate: Certificate
    password_file: Path
    esx: bool
    root: Path
    _connection: Any = field(repr=False)
    host: str = "127.0.0.1"
    user: str = USER
    password: str = PASSWORD

    @property
    def port(self) -> int:
        return int(self.front.server_port)

    @property
    def cafile(self) -> Path:
        return self.certificate.cafile

    def thumbprint(self, algorithm: str = "sha256") -> str:
        return self.certificate.thumbprint(algorithm)

    @property
    def datacenter(self) -> str:
        """As dcPath names it."""
        return min(self.folder.datacenters, key=len)

    def uri(self, scheme: str = "", *, verify: bool = True) -> str:
        """For -ic, and for virsh with verify=False."""
        scheme = scheme or ("esx" if self.esx else "vpx")
        path = "/DC0/DC0_H0" if scheme == "vpx" else ""
        user = quote(self.user, safe="")
        end = "" if verify else "?no_verify=1"
        return f"{scheme}://{user}@{self.host}:{self.port}{path}{end}"

    def api(self) -> Any:
        """The content of a ServiceInstance of pyvmomi, past the front."""
        return self._connection.RetrieveContent()

    def datastore(self, name: str = DATASTORE) -> Path:
        """Its folder on this host."""
        return self.folder.datastores[name]

    def add_datastore(self, name: str) -> Path:
        folder = self.root / f"datastore-{len(self.folder.datastores)}"
        folder.mkdir()
        for host in self._all("HostSystem"):
            host.configManager.datastoreSystem.CreateLocalDatastore(name, str(folder))
        self.folder.datastores[name] = folder
        return folder

    def put_disk(self, place: Path, content: bytes | Path) -> int:
        """The descriptor at `place` (DATASTORE/VM/NAME.vmdk) and its -flat.vmdk; gives the size."""
        place.parent.mkdir(parents=True, exist_ok=True)
        flat = place.with_name(f"{place.name.removesuffix('.vmdk')}-flat.vmdk")
        if isinstance(content, bytes):
            flat.write_bytes(content)
        else:
            argv = ["cp", "--sparse=always", "--reflink=auto", content, flat]
            subprocess.run(argv, check=True)
        size = flat.stat().st_size
        place.write_text(DESCRIPTOR.format(sectors=size // 512, flat=flat.name), encoding="utf-8")
        return size

    def create_vm(
        self,
        name: str,
        *,
        disks: Sequence[Disk] = (Disk(),),
        nics: Sequence[Nic] = (Nic(),),
        firmware: str = "bios",
        secure_boot: bool = False,
        cdrom: bool = True,
        guest: str = "debian10_64Guest",
        memory_mib: int = 1024,
        cpus: int = 2,
        datastore: str = DATASTORE,
        cbt: bool = False,
        where: str = "DC0_H0",
    ) -> Vm:
        """A VM that is off. `where`: a host, or a cluster. Its files: DATASTORE/NAME/."""
        from pyVmomi import vim

        spec = vim.vm.ConfigSpec(
            name=name,
            files=vim.vm.FileInfo(vmPathName=f"[{datastore}] {name}/{name}.vmx"),
            guestId=guest,
            memoryMB=memory_mib,
            numCPUs=cpus,
            firmware=firmware,
            changeTrackingEnabled=cbt,
            bootOptions=vim.vm.BootOptions(efiSecureBootEnabled=secure_boot),
            version="vmx-19",
        )
        devices = self._disks(name, disks)
        devices += [self._nic(number, nic) for number, nic in enumerate(nics)]
        devices += [_cdrom()] if cdrom else []
        spec.deviceChange = [
            vim.vm.device.VirtualDeviceSpec(operation="add", device=device) for device in devices
        ]
        pool = self._pool(where)
        task = self._datacenter_object().vmFolder.CreateVm(spec, pool=pool)
        return Vm(name, _done(task), self.datastore(datastore) / name)

    def _disks(self, name: str, disks: Sequence[Disk]) -> list[Any]:
        from pyVmomi import vim

        devices, keys = [], {}
        for number, disk in enumerate(disks):
            kind, key = CONTROLLERS[disk.controller]
            if disk.controller not in keys:
                keys[disk.controller] = key
                made = getattr(vim.vm.device, kind)(key=key, busNumber=0)
                if key == 1000:
                    made.sharedBus = "noSharing"
                devices.append(made)
            file = disk.name or name + (f"_{number}" if number else "") + ".vmdk"
            size = self.put_disk(self.datastore(disk.datastore) / name / file, disk.content)
            devices.append(_disk(disk, f"[{disk.datastore}] {name}/{file}", size, key, number))
        return devices

    def _nic(self, number: int, nic: Nic) -> Any:
        from pyVmomi import vim

        device = vim.vm.device
        backing = device.VirtualEthernetCard.NetworkBackingInfo(deviceName=nic.network)
        return getattr(device, NICS[nic.model])(
            key=4000 + number,
            controllerKey=100,
            unitNumber=7 + number,
            backing=backing,
            macAddress=nic.mac,
            addressType="manual",
        )

    def _pool(self, where: str) -> Any:
        if self.esx:
            return self._all("ComputeResource")[0].resourcePool
        return next(one for one in self._all("ComputeResource") if one.name == where).resourcePool

    def _datacenter_object(self) -> Any:
        return self._all("Datacenter")[0]

    def _all(self, kind: str) -> list[Any]:
        from pyVmomi import vim

        content = self.api()
        view = content.viewManager.CreateContainerView(
            content.rootFolder, [getattr(vim, kind)], True
        )
        found = list(view.view)
        view.Destroy()
        return found


DESCRIPTOR = """\
# Disk DescriptorFile
version=1
encoding="UTF-8"
CID=fffffffe
parentCID=ffffffff
createType="vmfs"

# Extent description
RW {sectors} VMFS "{flat}"

# The Disk Data Base
#DDB

ddb.adapterType = "lsilogic"
ddb.virtualHWVersion = "19"
"""


def _disk(disk: Disk, file: str, size: int, controller: int, number: int) -> Any:
    from pyVmomi import vim

    kind = vim.vm.device.VirtualDisk
    backing = kind.FlatVer2BackingInfo(
        fileName=file,
        diskMode=disk.mode,
        thinProvisioned=True,
        uuid=f"6000C29{number:x}-0000-0000-0000-000000000000",
    )
    return kind(
        key=2000 + number,
        controllerKey=controller,
        unitNumber=number if number < 7 else number + 1,
        backing=backing,
        capacityInKB=size // KIB,
        capacityInBytes=size,
    )


def _cdrom() -> Any:
    from pyVmomi import vim

    kind = vim.vm.device.VirtualCdrom
    backing = kind.RemotePassthroughBackingInfo(deviceName="", exclusive=False)
    return kind(key=3000, controllerKey=201, unitNumber=0, backing=backing)


def _done(task: Any) -> Any:
    """The result of a task; the simulator's have ended when they are given."""
    info = task.info
    assert info.state == "success", info.error
    return info.result


@contextmanager
def vcsim(folder: Path, *, esx: bool = False, folders: int = 0) -> Iterator[Vcsim]:
    """Serve until the block ends; its files are in `folder`. Skips where there is no Go.

    `folders`: 1 puts the datacenter into a folder, F0/DC0.
    """
    program = build()
    folder.mkdir(parents=True, exist_ok=True)
    argv = [program, f"-esx={esx}".lower(), "-user", USER, "-password", PASSWORD]
    with (folder / "vcsim.log").open("wb") as log:
        process = subprocess.Popen(
            [*argv, "-folders", str(folders)],
            stdin=subprocess.PIPE,  # it ends with this
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    try:
        yield from _front(folder, _port(process, folder), esx=esx)
    finally:
        assert process.stdin and process.stdout
        process.stdin.close()
        process.stdout.close()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _port(process: subprocess.Popen[str], folder: Path) -> int:
    assert process.stdout
    line = process.stdout.readline()
    assert line, (folder / "vcsim.log").read_text()
    return int(line)


def _front(folder: Path, port: int, *, esx: bool) -> Iterator[Vcsim]:
    from pyVim.connect import Disconnect, SmartConnect

    password_file = folder / "password"
    password_file.write_text(f"{PASSWORD}\n", encoding="utf-8")
    made = certificate(folder)
    files = Folder(USER, PASSWORD, set(), {})
    connection = SmartConnect(protocol="http", host="127.0.0.1", port=port, user=USER, pwd=PASSWORD)
    with serve_front(files, made.context, port) as front:
        server = Vcsim(front, files, made, password_file, esx, folder, connection)
        files.datacenters |= {_path(one) for one in server._all("Datacenter")}
        server.add_datastore(DATASTORE)
        try:
            yield server
        finally:
            Disconnect(connection)


def _path(entity: Any) -> str:
    """F0/DC0; the root folder has no place in it."""
    above = entity.parent
    return f"{_path(above)}/{entity.name}" if above.parent is not None else str(entity.name)


def build() -> Path:
    """The simulator, made once for all tests of this machine."""
    go = shutil.which("go")
    if go is None or not Path("/usr/share/gocode/src/github.com/vmware/govmomi").is_dir():
        pytest.skip("Go or govmomi's sources are not installed (make setup installs them)")
    return cache.cached("vcsim", [SOURCE], lambda to: _build(go, to), suffix="bin")


def _build(go: str, to: Path) -> None:
    env = {
        **os.environ,
        "GO111MODULE": "off",
        "GOPATH": "/usr/share/gocode",
        "GOFLAGS": "-trimpath",
        "GOCACHE": str(cache.folder() / "go"),
    }
    argv = [go, "build", "-o", to, SOURCE]
    subprocess.run(argv, check=True, env=env, timeout=BUILD_SECONDS)
