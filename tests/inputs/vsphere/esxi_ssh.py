"""The SSH server of a simulated ESXi host: what is logged in sees /vmfs/volumes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.sshd import Sshd, sshd
from tests.vcsim import DATASTORE, Vcsim

# Each command runs in mounts of its own, in which the root has a folder more. SFTP is a program.
ENTER = """\
#!/bin/sh
case "$SSH_ORIGINAL_COMMAND" in
internal-sftp) SSH_ORIGINAL_COMMAND=/usr/lib/openssh/sftp-server ;;
esac
export SSH_ORIGINAL_COMMAND
exec unshare --mount /bin/sh -c '
set -e
mount -t tmpfs none {root}
for one in /*; do
    if [ -L "$one" ]; then cp -P "$one" "{root}$one"
    elif [ -d "$one" ]; then mkdir "{root}$one"; mount --rbind "$one" "{root}$one"
    fi
done
mkdir -p "{root}/vmfs/volumes/{datastore}"
mount --bind "{folder}" "{root}/vmfs/volumes/{datastore}"
exec chroot "{root}" /bin/sh -c "$SSH_ORIGINAL_COMMAND"'
"""


@contextmanager
def esxi_ssh(folder: Path, vc: Vcsim) -> Iterator[Sshd]:
    """Serve the first datastore of `vc` until the block ends."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    root, enter = folder / "root", folder / "enter"
    root.mkdir(parents=True)
    enter.write_text(ENTER.format(root=root, datastore=DATASTORE, folder=vc.datastore()))
    enter.chmod(0o755)
    with sshd(folder / "sshd", extra=f"ForceCommand {enter}") as server:
        yield server
