"""A host that has nbdkit's vddk plugin: ours, see plugin.py."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PLUGIN = Path(__file__).with_name("plugin.py")
USER, PASSWORD = "administrator@vsphere.local", "it's 100% secret"
THUMBPRINT = ":".join(["AB"] * 20)

WRAPPER = """\
#!/bin/sh
# nbdkit with another plugin.
case "$*" in
    *--dump-config*) {nbdkit} "$@" | sed 's|^plugindir=.*|plugindir={folder}|'; exit ;;
esac
count=$#
while [ "$count" -gt 0 ]; do
    if [ "$1" = vddk ]; then
        set -- "$@" python 'script={plugin}'
    else
        set -- "$@" "$1"
    fi
    shift
    count=$((count - 1))
done
exec {nbdkit} "$@"
"""


@dataclass(frozen=True)
class VddkHost:
    """`folder` goes first into PATH, `world` is the value of VDDK_FAKE."""

    folder: Path
    world: Path
    password_file: Path
    libdir: Path

    def given(self) -> list[dict[str, str]]:
        """What the plugin was given, for each time that it logged in."""
        log = self.world.with_suffix(".given")
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []

    def largest(self) -> int:
        return int(self.world.with_suffix(".largest").read_text())


def vddk_host(folder: Path, disks: dict[str, Path], **world: Any) -> VddkHost:
    """`disks`: what is served by the paths that VDDK knows."""
    folder.mkdir()
    real = shutil.which("nbdkit")
    wrapper = folder / "nbdkit"
    wrapper.write_text(WRAPPER.format(nbdkit=real, folder=folder, plugin=PLUGIN))
    wrapper.chmod(0o755)
    (folder / "nbdkit-vddk-plugin").touch()
    known = {"user": USER, "password": PASSWORD, "thumbprint": THUMBPRINT}
    paths = {name: str(path) for name, path in disks.items()}
    (folder / "world").write_text(json.dumps({**known, "disks": paths, **world}))
    (folder / "password").write_text(f"{PASSWORD}\n")
    library = folder / "vmware-vix-disklib-distrib" / "lib64" / "libvixDiskLib.so.8"
    library.parent.mkdir(parents=True)
    library.touch()
    return VddkHost(folder, folder / "world", folder / "password", library.parent.parent)
