"""Making, reading, starting and removing VMs."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from tests.fakes.proxmox.state import ApiError, State, Storage, Task, sdn_path

DRIVE = re.compile(r"(virtio|scsi|sata|ide)(\d+)|efidisk0|tpmstate0")
MOST = {"virtio": 16, "scsi": 31, "sata": 6, "ide": 4}
PATTERNS = {
    "name": r"([A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?\.)*[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?",
    "description": r"(?s).{0,8192}",
    "ostype": "other|wxp|w2k|w2k3|w2k8|wvista|win7|win8|win10|win11|l24|l26|solaris",
    "machine": "pc|q35",
    "bios": "seabios|ovmf",
    "scsihw": "virtio-scsi-single|virtio-scsi-pci",
    "memory": r"\d+",
    "balloon": r"\d+",
    "sockets": r"\d+",
    "cores": r"\d+",
    "cpu": r"[A-Za-z0-9._+-]+",
    "agent": "[01]",
    "localtime": "[01]",
    "serial0": "socket",
    "rng0": "source=/dev/urandom",
    "audio0": "device=(ich9-intel-hda|intel-hda|AC97),driver=none",
    "smbios1": r"uuid=[0-9a-f-]{36}",
    "vmgenid": r"[0-9a-f-]{36}",
    "boot": r"order=[a-z0-9;]+",
    "vmid": r"\d+",
}
NET = re.compile(
    r"(virtio|e1000e?|rtl8139)(?:=(?:[0-9A-F]{2}:){5}[0-9A-F]{2})?,bridge=([^,]+)(?:,tag=(\d+))?"
    r"(,link_down=1)?"
)
DISK = re.compile(
    r"([A-Za-z][\w.-]*):0,import-from=([^,]+),discard=on(,iothread=1)?(,serial=([^,]+))?"
)
SMALL = re.compile(r"([A-Za-z][\w.-]*):1,(efitype=4m,pre-enrolled-keys=[01]|version=v2\.0)")


def create(state: State, user: str, node: str, given: dict[str, str]) -> str:
    check(state, user, given)
    vmid = int(given.pop("vmid"))
    state.check(user, f"/vms/{vmid}", "VM.Allocate", "VM.Config.Disk", "VM.Config.Options")
    with state.lock:
        if state.faults.taken_ids > 0:
            state.faults.taken_ids -= 1
            state.vms[vmid] = {"name": "somebody", "description": "theirs"}
        if vmid in state.vms:
            reason = f"unable to create VM {vmid} - VM {vmid} already exists on node '{node}'"
            raise ApiError(500, reason)
        state.vms[vmid] = {"lock": "create"}

    def work(task: Task) -> None:
        folders = {one.volume(vmid, "x").parent for one in state.storages.values()}
        try:
            state.vms[vmid] = _import(state, vmid, dict(given), task)
        except BaseException:
            for folder in folders:
                shutil.rmtree(folder, ignore_errors=True)
            del state.vms[vmid]
            raise

    return state.start("qmcreate", str(vmid), user, work, node)


def check(state: State, user: str, given: dict[str, str]) -> None:
    for key, word in given.items():
        if DRIVE.fullmatch(key):
            _check_drive(state, user, key, word)
        elif re.fullmatch(r"net([12]?\d|3[01])", key):
            match = NET.fullmatch(word)
            if not match or match[2] not in state.bridges:
                raise _wrong(key, f"bridge or format: {word}")
            state.check(user, sdn_path(match[2], match[3]), "SDN.Use")
        elif key not in PATTERNS or not re.fullmatch(PATTERNS[key], word):
            raise _wrong(key, f"not defined in schema, or invalid format: {word}")
        elif key in state.root_only and user != "root@pam":
            raise ApiError(500, f"only root can set '{key}' config")
    for name in given.get("boot", "order=").removeprefix("order=").split(";"):
        if name and name not in given:
            raise _wrong("boot", f"invalid boot order: device '{name}' does not exist")


def _check_drive(state: State, user: str, key: str, word: str) -> None:
    kind = re.sub(r"\d+$", "", key)
    if kind in MOST and int(key.removeprefix(kind)) >= MOST[kind]:
        raise _wrong(key, "property is not defined in schema")
    if word == "none,media=cdrom":
        return
    match = (DISK if kind in MOST else SMALL).fullmatch(word)
    if not match or match[1] not in state.storages:
        raise _wrong(key, f"unable to parse drive options: {word}")
    state.check(user, f"/storage/{match[1]}", "Datastore.AllocateSpace")
    if not state.storages[match[1]].content.count("images"):
        raise ApiError(400, f"storage '{match[1]}' does not support vm images")
    if kind not in MOST:
        return
    if match[5] and len(unquote(match[5])) > 20:
        raise _wrong(key, "serial is too long")
    if match[2].startswith("/"):
        if user != "root@pam":
            raise ApiError(403, "Only root can pass arbitrary filesystem paths.")
    elif not _image(state, match[2]).exists():
        raise ApiError(500, f"volume '{match[2]}' does not exist")


def _wrong(key: str, why: str) -> ApiError:
    return ApiError(400, "Parameter verification failed.", {key: why})


def _image(state: State, volume: str) -> Path:
    if volume.startswith("/"):
        return Path(volume)
    storage, _, name = volume.partition(":import/")
    return state.storages[storage].image(name)


def _import(state: State, vmid: int, config: dict[str, Any], task: Task) -> dict[str, Any]:
    for key in sorted(key for key in config if DISK.fullmatch(str(config[key])))[:1]:
        task.log.append(f"create full clone of drive ({DISK.fullmatch(config[key])[2]})")
    state.faults.imports.pass_by(task.stop)
    task.checkpoint()
    number = 0
    for key in sorted(key for key in config if DRIVE.fullmatch(key)):
        if match := DISK.fullmatch(config[key]):
            storage, image = state.storages[match[1]], _image(state, match[2])
            rest = [word for word in match.groups()[2:4] if word]
            volume = _volume(storage, vmid, number, match[2])
            _convert(image, volume)
            task.log.append("transferred 100%")
            if state.faults.import_error:
                raise RuntimeError(
                    f"unable to create VM {vmid} - cannot import from '{match[2]}' - "
                    f"{state.faults.import_error}"
                )
            where = f"{match[1]}:{vmid}/{volume.name}"
            config[key] = f"{where},discard=on{''.join(rest)},size={volume.stat().st_size}"
            task.log.append(f"{key}: successfully created disk '{config[key]}'")
        elif match := SMALL.fullmatch(config[key]):
            config[key] = f"{match[1]}:{vmid}/vm-{vmid}-disk-{number}.raw,{match[2]}"
        else:
            continue
        number += 1
        task.checkpoint()
    return config


def _volume(storage: Storage, vmid: int, number: int, image: str) -> Path:
    """Files keep the format of an image of a storage; of one that is named, they are raw."""
    suffix = ".qcow2" if storage.type == "dir" and re.search(":.*qcow2$", image) else ".raw"
    volume = storage.volume(vmid, f"vm-{vmid}-disk-{number}{suffix}")
    volume.parent.mkdir(parents=True, exist_ok=True)
    return volume


def _convert(image: Path, volume: Path) -> None:
    argv = ["qemu-img", "convert", "-f", _format(image), "-O", volume.suffix[1:], image, volume]
    subprocess.run(argv, check=True, capture_output=True)


def _format(image: Path) -> str:
    """By the name of what was sent; of a file that is named, from its content."""
    if image.suffix in (".raw", ".qcow2"):
        return image.suffix[1:]
    with image.open("rb") as file:
        return "qcow2" if file.read(4) == b"QFI\xfb" else "raw"


def config(state: State, user: str, node: str, vmid: int) -> dict[str, Any]:
    if vmid not in state.vms:
        path = f"nodes/{node}/qemu-server/{vmid}.conf"
        raise ApiError(500, f"Configuration file '{path}' does not exist")
    state.check(user, f"/vms/{vmid}", "VM.Audit")
    found = dict(state.vms[vmid])
    if "description" in found:
        found["description"] += "\n"
    return {**found, "digest": "0" * 40}


def start(state: State, user: str, vmid: int) -> str:
    state.check(user, f"/vms/{vmid}", "VM.PowerMgmt")

    def work(task: Task) -> None:
        task.log.append("starting")
        if state.faults.start_error:
            raise RuntimeError(state.faults.start_error)
        state.running.add(vmid)

    return state.start("qmstart", str(vmid), user, work)


def remove(state: State, user: str, vmid: int) -> str:
    state.check(user, f"/vms/{vmid}", "VM.Allocate")
    if vmid in state.running:
        raise ApiError(500, f"VM {vmid} is running - destroy failed")
    if "lock" in state.vms[vmid]:
        raise ApiError(500, f"VM is locked ({state.vms[vmid]['lock']})")

    def work(task: Task) -> None:
        for storage in state.storages.values():
            shutil.rmtree(storage.volume(vmid, "x").parent, ignore_errors=True)
        del state.vms[vmid]

    return state.start("qmdestroy", str(vmid), user, work)
