"""Stands in for nbdkit's vddk plugin, which needs VMware's library: a script of nbdkit's Python.

It wants what that one wants, and says what VDDK says. The file $VDDK_FAKE tells what there is:
{"user", "password", "thumbprint", "disks": {"[ds] vm/vm.vmdk": FILE}, "locked": [...]}; what it was
given and the largest request are written beside it.
"""

import json
import os
from pathlib import Path

API_VERSION = 2
KEYS = (
    *("compression", "config", "file", "libdir", "nfchostport", "password", "port", "server"),
    *("snapshot", "thumbprint", "transports", "user", "vm"),
)
SECTOR = 512

world_file = Path(os.environ["VDDK_FAKE"])
world = json.loads(world_file.read_text(encoding="utf-8"))
given = {}
largest = 0


def config(key, value):
    if key not in KEYS:
        raise ValueError(f"unknown parameter '{key}'")
    given[key] = value


def config_complete():
    for key in ("file", "server", "user", "password", "vm"):
        if key not in given:
            raise ValueError(f"remote connection requested, missing parameter: {key}")
    if "libdir" in given and not (Path(given["libdir"]) / "lib64/libvixDiskLib.so.8").exists():
        raise OSError("libvixDiskLib.so.8: cannot open shared object file: No such file")
    assert given["vm"].startswith("moref=")
    assert given["password"].startswith("+")


def open(readonly):
    assert readonly
    with world_file.with_suffix(".given").open("a", encoding="utf-8") as log:
        log.write(json.dumps(given) + "\n")
    if given["thumbprint"] != world["thumbprint"]:
        raise OSError("VixDiskLib_ConnectEx: The host certificate chain is invalid: thumbprint")
    password = Path(given["password"][1:]).read_text(encoding="utf-8").split("\n")[0]
    if (given["user"], password) != (world["user"], world["password"]):
        raise OSError("VixDiskLib_ConnectEx: Cannot connect: Incorrect user name or password")
    if given["file"] in world.get("locked", []):
        raise OSError("VixDiskLib_Open: Failed to lock the file")
    if given["file"] not in world["disks"]:
        raise OSError("VixDiskLib_Open: The file was not found: see the log")
    return os.open(world["disks"][given["file"]].encode(), os.O_RDONLY)


def close(handle):
    os.close(handle)


def get_size(handle):
    return os.lseek(handle, 0, os.SEEK_END)


def pread(handle, buffer, offset, flags):
    global largest
    if offset % SECTOR or len(buffer) % SECTOR:
        raise ValueError("read is not aligned to sectors")
    if len(buffer) > largest:
        largest = len(buffer)
        world_file.with_suffix(".largest").write_text(str(largest))
    os.preadv(handle, [buffer], offset)
