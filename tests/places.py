"""Block devices, NBD servers to write to, ports, and what TLS needs."""

from __future__ import annotations

import fcntl
import os
import secrets
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from itertools import count
from pathlib import Path

import pytest


def tool(*argv: object) -> str:
    words = [str(word) for word in argv]
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


@contextmanager
def attaching() -> Iterator[None]:
    """No other test attaches a loop device meanwhile. Two that look for a free one may open the
    same: who does not get it is seen there for a moment, with the device open for writing."""
    try:
        control = os.open("/dev/loop-control", os.O_RDONLY)
    except OSError:
        pytest.skip("no loop devices here, or no root to make them")
    try:
        fcntl.flock(control, fcntl.LOCK_EX)
        yield
    finally:
        os.close(control)


class LoopDevice:
    """A file as a block device, which goes with this process, however that ends: the device is
    detached as soon as nobody has it open.
    """

    def __init__(self, file: Path, *options: str) -> None:
        with attaching():
            self.file = file
            self.path = Path(tool("losetup", "--find", "--show", *options, file).strip())
            self._hold()

    def attach_again(self) -> None:
        """The same name is another device."""
        with attaching():
            os.close(self._fd)
            tool("losetup", self.path, self.file)
            self._hold()

    def close(self) -> None:
        os.close(self._fd)

    def _hold(self) -> None:
        self._fd = os.open(self.path, os.O_RDONLY)
        tool("losetup", "-d", self.path)


@contextmanager
def loop_device(file: Path, *options: str) -> Iterator[Path]:
    with closing(LoopDevice(file, *options)) as device:
        yield device.path


@contextmanager
def loop_devices(folder: Path) -> Iterator[Callable[..., Path]]:
    """Makes block devices of files loop-0, loop-1, ... in `folder`."""
    numbers = count()
    with ExitStack() as stack:

        def make(content: bytes, *options: str) -> Path:
            file = folder / f"loop-{next(numbers)}"
            file.write_bytes(content)
            return stack.enter_context(loop_device(file, *options))

        yield make


class Servers:
    """NBD servers that are ready when they are started, and that can be killed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def qemu_nbd(self, file: Path, *options: str, name: str = "") -> str:
        """Serves a raw file to any number of clients; gives the address."""
        name = name or f"s{len(self._running)}"
        socket, ready = self._folder / name, self._folder / f"{name}.pid"
        argv = ["qemu-nbd", "-f", "raw", "--persistent", "--shared=0", "-k", socket]
        self.start(name, [*argv, f"--pid-file={ready}", *options, file], ready)
        return f"nbd+unix:///?socket={socket}"

    def nbdkit(self, *words: object, name: str = "") -> Path:
        """Any nbdkit; gives its socket."""
        name = name or f"s{len(self._running)}"
        socket, ready = self._folder / name, self._folder / f"{name}.pid"
        self.start(name, ["nbdkit", "-f", "-U", socket, "-P", ready, *words], ready)
        return socket

    def start(self, name: str, argv: list[object], ready: Path) -> None:
        for path in (ready, self._folder / name):
            path.unlink(missing_ok=True)
        words = [str(word) for word in argv]
        self._running[name] = subprocess.Popen(words, stderr=subprocess.DEVNULL)
        while not ready.exists():
            assert self._running[name].poll() is None

    def kill(self, name: str) -> None:
        process = self._running.pop(name)
        process.kill()
        process.wait()

    @contextmanager
    def stopped(self, name: str) -> Iterator[None]:
        with stopped(self._running[name].pid):
            yield

    def stop(self) -> None:
        for process in self._running.values():
            process.terminate()
        for process in self._running.values():
            process.wait()


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """A child of ours whose threads have all stopped."""
    os.kill(pid, signal.SIGSTOP)
    os.waitid(os.P_PID, pid, os.WSTOPPED)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@contextmanager
def nbd_servers(folder: Path) -> Iterator[Servers]:
    servers = Servers(folder)
    try:
        yield servers
    finally:
        servers.stop()


# Ports --------------------------------------------------------------------------------------------


@contextmanager
def reserved_port() -> Iterator[int]:
    """A TCP port of 127.0.0.1 that the kernel gives to nobody else until the block ends.

    Who connects is refused, unless a server of the test listens there, which may be ended and
    started again. It must set SO_REUSEADDR, as servers do.
    """
    with socket.socket() as holder:  # bound, and not listening
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        yield int(holder.getsockname()[1])


# TLS ----------------------------------------------------------------------------------------------

CURVE = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]


def authority(folder: Path) -> Path:
    """ca-cert.pem and ca-key.pem in a new folder."""
    folder.mkdir()
    files = ["-keyout", folder / "ca-key.pem", "-out", folder / "ca-cert.pem"]
    tool("openssl", "req", "-x509", *CURVE, *files, "-subj", "/CN=authority", "-days", "2")
    return folder


def certificate(folder: Path, authority: Path, role: str, *, address: str = "127.0.0.1") -> None:
    """ROLE-cert.pem and ROLE-key.pem, signed by the authority."""
    folder.mkdir(exist_ok=True)
    request, serial = folder / f"{role}.csr", str(secrets.randbits(60))
    extensions = folder / f"{role}.ext"
    extensions.write_text(f"subjectAltName=IP:{address}\n")
    key, cert = folder / f"{role}-key.pem", folder / f"{role}-cert.pem"
    tool("openssl", "req", *CURVE, "-keyout", key, "-out", request, "-subj", f"/CN={role}")
    ca = ["-CA", authority / "ca-cert.pem", "-CAkey", authority / "ca-key.pem"]
    sign = ["x509", "-req", "-in", request, *ca, "-set_serial", serial, "-days", "2"]
    tool("openssl", *sign, "-extfile", extensions, "-out", cert)
    if folder != authority:
        (folder / "ca-cert.pem").write_bytes((authority / "ca-cert.pem").read_bytes())
