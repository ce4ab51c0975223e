"""A real libvirtd of the tests' own: a session daemon whose files are all in one folder.

It needs no systemd, no root and no bus, and sees nothing of the host's libvirt. libvirt gives root
another kind of daemon, so that root runs it as somebody else of a user namespace.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.places import reserved_port
from tests.sshd import Sshd

CONFIG = """\
unix_sock_dir = "{folder}"
auth_unix_rw = "none"
auth_unix_ro = "none"
log_outputs = "3:file:{folder}/log"
listen_tls = 0
listen_tcp = 1
listen_addr = "127.0.0.1"
tcp_port = "{port}"
auth_tcp = "none"
"""
QEMU_CONFIG = 'stdio_handler = "file"\n'  # else every guest needs virtlogd
IDLE_SECONDS = 3600  # should the tests be killed: it ends by itself
# What libvirt runs on the other host, which has no other netcat: `netcat -U SOCKET`.
NETCAT = f"""#!{sys.executable}
import os, socket, sys, threading
if "-U" in sys.argv:
    server = socket.socket(socket.AF_UNIX)
    server.connect(sys.argv[-1])
    def pump():
        while data := server.recv(65536):
            os.write(1, data)
    threading.Thread(target=pump, daemon=True).start()
    while data := os.read(0, 65536):
        server.sendall(data)
"""
NOBODY = ["unshare", "--user", "--map-user=65534", "--map-group=65534"]


@dataclass(frozen=True)
class Libvirtd:
    folder: Path
    port: int  # of TCP, without a login
    program: str

    @property
    def socket(self) -> Path:
        return self.folder / "libvirt-sock"

    @property
    def uri(self) -> str:
        return f"qemu+unix:///session?socket={self.socket}"

    @property
    def tcp_uri(self) -> str:
        """The same VMs, as another host's."""
        return self.uri_at(self.port)

    @staticmethod
    def uri_at(port: int) -> str:
        return f"qemu+tcp://127.0.0.1:{port}/session"

    def crash(self) -> None:
        _end(self._pid(), signal.SIGKILL)

    def start_again(self) -> None:
        """With the pools and domains that there were."""
        _start(self.program, self.folder, self.port)

    def end(self) -> None:
        _end(self._pid(), signal.SIGTERM)

    def _pid(self) -> int:
        return int((self.folder / "pid").read_text())

    @contextmanager
    def connected(self) -> Iterator[Any]:
        """libvirt's own connection, which may change things."""
        import libvirt

        connection = libvirt.open(self.uri)
        try:
            yield connection
        finally:
            connection.close()

    @contextmanager
    def defined(self, xml: str) -> Iterator[Any]:
        """A domain, which is gone afterwards, whatever became of it."""
        import libvirt

        with self.connected() as connection:
            domain = connection.defineXML(xml)
            try:
                yield domain
            finally:
                if domain.isActive():
                    domain.destroy()
                metadata = libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
                domain.undefineFlags(metadata | libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE)

    @contextmanager
    def pool(self, name: str, folder: Path) -> Iterator[Any]:
        """An active pool of a folder's files."""
        xml = f"<pool type='dir'><name>{name}</name><target><path>{folder}</path></target></pool>"
        with self.connected() as connection:
            pool = connection.storagePoolDefineXML(xml)
            try:
                pool.create()
                yield pool
            finally:
                with self.connected() as anew:  # the daemon may have been killed
                    pool = anew.storagePoolLookupByName(name)
                    if pool.isActive():
                        pool.destroy()
                    pool.undefine()

    def over_ssh(self, server: Sshd, transport: str = "ssh") -> str:
        """The same VMs, as another host's. `transport`: ssh (the program) or libssh."""
        netcat = self.folder / "netcat"
        netcat.write_text(NETCAT)
        netcat.chmod(0o755)
        return (
            f"qemu+{transport}://{server.user}@127.0.0.1:{server.port}/session?proxy=netcat"
            f"&netcat={netcat}&socket={self.socket}&keyfile={server.identity}&sshauth=privkey"
            + ("&no_verify=1&no_tty=1" if transport == "ssh" else "")
            + f"&known_hosts={server.known_hosts}"
        )


@pytest.fixture(scope="module")
def libvirtd() -> Iterator[Libvirtd]:
    with own_libvirtd() as server:
        yield server


@contextmanager
def own_libvirtd() -> Iterator[Libvirtd]:
    """One that may be killed."""
    program = shutil.which("libvirtd", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None or shutil.which("qemu-system-x86_64") is None:
        pytest.skip("libvirtd or QEMU is not installed (make setup installs them)")
    with running_libvirtd(program) as server:
        yield server


@contextmanager
def running_libvirtd(program: str) -> Iterator[Libvirtd]:
    folder = Path(
        tempfile.mkdtemp(prefix="v2v-libvirtd-", dir="/tmp")
    )  # paths of sockets are short
    try:
        with reserved_port() as port:
            server = Libvirtd(folder, port, program)
            server.start_again()
            try:
                yield server
                _end_guests(server)
            finally:
                server.end()
    finally:
        shutil.rmtree(folder)


def _start(program: str, folder: Path, port: int) -> None:
    homes = {}
    for name in ("CONFIG_HOME", "CACHE_HOME", "DATA_HOME", "RUNTIME_DIR"):
        homes[f"XDG_{name}"] = str(folder / name.lower())
        (folder / name.lower() / "libvirt").mkdir(parents=True, mode=0o700, exist_ok=True)
    (folder / "libvirtd.conf").write_text(CONFIG.format(folder=folder, port=port))
    (folder / "config_home/libvirt/qemu.conf").write_text(QEMU_CONFIG)
    argv = [program, "-d", "-l", "-f", f"{folder}/libvirtd.conf", "-p", f"{folder}/pid"]
    argv += ["--timeout", str(IDLE_SECONDS)]
    argv = [*NOBODY, *argv] if os.geteuid() == 0 else argv
    environment = {**os.environ, **homes, "HOME": str(folder)}
    # It goes into the background once it listens.
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        log = folder / "log"
        pytest.skip(f"libvirtd: {done.stderr} {log.read_text() if log.exists() else ''}")


def _end_guests(server: Libvirtd) -> None:
    with server.connected() as connection:
        for domain in connection.listAllDomains():
            if domain.isActive():
                domain.destroy()


def _end(pid: int, signum: int) -> None:
    process = os.pidfd_open(pid)  # it is no child of ours
    try:
        signal.pidfd_send_signal(process, signum)
        if not select.select([process], [], [], 20)[0]:
            signal.pidfd_send_signal(process, signal.SIGKILL)
            select.select([process], [], [], 20)
    finally:
        os.close(process)


def domain_xml(name: str, *disks: str, kind: str = "qemu", extra: str = "") -> str:
    """A small VM. As it has nothing to boot from, it starts within half a second."""
    return (
        f"<domain type='{kind}'><name>{name}</name><memory unit='MiB'>32</memory><vcpu>2</vcpu>"
        f"<os><type arch='x86_64'>hvm</type></os>{extra}"
        f"<devices>{''.join(disks)}</devices></domain>"
    )


def file_disk(
    path: Path,
    format: str | None = "qcow2",
    *,
    target: str = "vda",
    below: Path | None = None,
) -> str:
    """`below`: a qcow2 image that libvirt is told of as the one below."""
    driver = f"<driver name='qemu' type='{format}'/>" if format else ""
    chain = (
        f"<backingStore type='file'><format type='qcow2'/><source file='{below}'/></backingStore>"
        if below
        else ""
    )
    return (
        f"<disk type='file' device='disk'>{driver}<source file='{path}'/>{chain}"
        f"<target dev='{target}' bus='virtio'/></disk>"
    )


def volume_disk(pool: str, volume: str, *, target: str = "vda", format: str | None = None) -> str:
    driver = f"<driver name='qemu' type='{format}'/>" if format else ""
    return (
        f"<disk type='volume' device='disk'>{driver}<source pool='{pool}' volume='{volume}'/>"
        f"<target dev='{target}' bus='virtio'/></disk>"
    )
