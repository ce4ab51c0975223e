"""What libvirt knows of a VM: asked for once, read-only, and kept as values."""

from __future__ import annotations

import os
import queue
import re
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any, TypeVar

from v2v.errors import Cancelled, HostError, SourceError, UsageError, V2VError
from v2v.inputs._libvirt_uri import ssh_host
from v2v.inputs._libvirt_volumes import Place, find_volume
from v2v.inputs._xml import parse_xml
from v2v.options import did_you_mean
from v2v.run import Run

T = TypeVar("T")

ANSWER_SECONDS = 120.0  # for all there is to ask; ssh may have to ask the user for a password
UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
NAMES_SHOWN = 10
# What ssh says when it is not let in; libvirt gives it no code of its own.
SSH_REFUSALS = ("Permission denied (", "Host key verification failed", "Too many authentication")

STATES = {  # virDomainState of what is not shut off
    1: "running",
    2: "running",  # "blocked" on a resource, as Xen says of a VM that is idle
    3: "paused",
    4: "being shut down",
    5: "being shut off",
    6: "crashed, but still there",
    7: "suspended by its guest",
}


@dataclass(frozen=True, slots=True)
class Vm:
    """`xml` is that of the running VM where it runs, else what it is started from."""

    uri: str  # as libvirt completed it
    name: str
    xml: bytes
    state: str | None  # None: shut off
    saved: bool  # its memory is kept in a file
    snapshots: tuple[str, ...]  # oldest first
    volumes: dict[tuple[str, str], Place]  # (pool, volume)

    @property
    def virsh(self) -> str:
        """How commands in hints begin."""
        return f"virsh -c {quote(self.uri)}"


def read_vm(uri: str | None, word: str, password_file: Path | None, run: Run) -> Vm:
    """Ask the libvirt at `uri` (None: libvirt's default) for the VM of that name or UUID.

    Ends within ANSWER_SECONDS, and as soon as the job is cancelled.
    """
    libvirt = binding()
    if uri is not None:
        ssh_host(uri)
    password = _password(password_file)
    shown = uri or "libvirt's default host"

    def ask() -> Vm:
        connection = _open(libvirt, uri, password)
        try:
            ssh_host(connection.getURI())
            return _ask(libvirt, connection, word)
        finally:
            connection.close()

    def asked() -> Vm:
        try:
            return ask()
        except libvirt.libvirtError as exc:
            raise _wrapped(libvirt, exc, shown) from exc

    return _wait_for(asked, shown, run)


def binding() -> Any:
    """libvirt's Python binding, which from now on prints no errors by itself."""
    try:
        import libvirt
    except ImportError as exc:
        raise HostError(
            "the Python binding of libvirt is not installed",
            id="binding-missing",
            hint="install it: apt-get install python3-libvirt, or dnf install python3-libvirt",
        ) from exc
    libvirt.registerErrorHandler(_be_silent, None)
    return libvirt


def _be_silent(context: object, error: object) -> None:
    """Errors come as exceptions, too."""


# Connecting ---------------------------------------------------------------------------------------


def _open(libvirt: Any, uri: str | None, password: str | None) -> Any:
    """Read-only: enough for all that is asked, and allowed to more users."""

    def answer(wanted: list[list[Any]], _: object) -> int:
        if password is None:
            return -1
        for credential in wanted:
            credential[4] = password
        return 0

    kinds = [libvirt.VIR_CRED_PASSPHRASE, libvirt.VIR_CRED_NOECHOPROMPT]
    return libvirt.openAuth(uri, [kinds, answer, None], libvirt.VIR_CONNECT_RO)


def _password(file: Path | None) -> str | None:
    try:
        return None if file is None else file.read_text().split("\n")[0]
    except OSError as exc:
        raise UsageError(f"-ip {file}: cannot be read: {exc.strerror}", id="password-file") from exc


def _wait_for(action: Callable[[], T], shown: str, run: Run) -> T:
    """Let another thread do it: libvirt's calls cannot be interrupted."""
    outcomes: queue.SimpleQueue[T | BaseException] = queue.SimpleQueue()

    def work() -> None:
        try:
            outcomes.put(action())
        except BaseException as exc:  # noqa: BLE001  raised below, in the caller's thread
            outcomes.put(exc)

    thread = threading.Thread(target=work, name="libvirt", daemon=True)
    with run.cancel.calling(lambda: outcomes.put(Cancelled())):
        thread.start()
        try:
            outcome = outcomes.get(timeout=ANSWER_SECONDS)
        except queue.Empty:
            outcome = _timeout(shown)
    if isinstance(outcome, BaseException):
        _end_programs_of(thread)
        raise outcome
    return outcome


def _end_programs_of(thread: threading.Thread) -> None:
    """The ssh that libvirt started in the thread; without it, its call ends with an error."""
    if not thread.is_alive():
        return
    with suppress(OSError):
        children = Path(f"/proc/self/task/{thread.native_id}/children").read_text()
        for pid in children.split():
            os.kill(int(pid), signal.SIGTERM)


# Asking -------------------------------------------------------------------------------------------


def _ask(libvirt: Any, connection: Any, word: str) -> Vm:
    domain = _find(libvirt, connection, word)
    active = bool(domain.isActive()) and connection.getType() != "TEST"  # its VMs always run
    xml = domain.XMLDesc(0 if active else libvirt.VIR_DOMAIN_XML_INACTIVE).encode()
    return Vm(
        uri=connection.getURI(),
        name=domain.name(),
        xml=xml,
        state=STATES.get(domain.state()[0], "running") if active else None,
        saved=bool(_if_supported(libvirt, domain.hasManagedSaveImage)),
        snapshots=_snapshots(libvirt, domain),
        volumes=_volumes(connection, xml),
    )


def _find(libvirt: Any, connection: Any, word: str) -> Any:
    """By name or, where none has that, by UUID."""
    lookups = [connection.lookupByName]
    if UUID.fullmatch(word):
        lookups.append(connection.lookupByUUIDString)
    for lookup in lookups:
        try:
            return lookup(word)
        except libvirt.libvirtError as exc:
            if exc.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
                raise
    names = sorted(domain.name() for domain in connection.listAllDomains())
    raise _unknown(word, names, connection.getURI())


def _snapshots(libvirt: Any, domain: Any) -> tuple[str, ...]:
    parents_first = libvirt.VIR_DOMAIN_SNAPSHOT_LIST_TOPOLOGICAL
    found = _if_supported(libvirt, lambda: domain.listAllSnapshots(parents_first))
    return tuple(snapshot.getName() for snapshot in found or ())


def _if_supported(libvirt: Any, call: Callable[[], T]) -> T | None:
    """None from drivers that do not know of such a thing."""
    try:
        return call()
    except libvirt.libvirtError as exc:
        if exc.get_error_code() == libvirt.VIR_ERR_NO_SUPPORT:
            return None
        raise


def _volumes(connection: Any, xml: bytes) -> dict[tuple[str, str], Place]:
    """Every volume that a disk names, or what stands below one."""
    sources = parse_xml(xml, "the XML that libvirt gave").iterfind("devices/disk//source")
    named = {(source.get("pool"), source.get("volume")) for source in sources}
    return {
        (pool, volume): find_volume(connection, pool, volume)
        for pool, volume in sorted((p, v) for p, v in named if p and v)
    }


# Errors -------------------------------------------------------------------------------------------


def _wrapped(libvirt: Any, exc: Any, shown: str) -> V2VError:
    text, code = str(exc), exc.get_error_code()
    denied = text.endswith("Permission denied") or any(word in text for word in SSH_REFUSALS)
    if denied or code in (
        libvirt.VIR_ERR_AUTH_FAILED,
        libvirt.VIR_ERR_AUTH_CANCELLED,
        libvirt.VIR_ERR_AUTH_UNAVAILABLE,
        libvirt.VIR_ERR_OPERATION_DENIED,
    ):
        return SourceError(
            f"{shown} does not let you in: {text}",
            id="libvirt-auth",
            hint="on this host, be root or in the group libvirt; with ssh, log in once by hand, "
            "with a key; qemu+libssh://USER@HOST/system takes the password of -ip FILE",
        )
    return SourceError(
        f"cannot read from {shown}: {text}",
        id="libvirt-failed",
        hint="is libvirt running there, and the address right? "
        "`virsh -c URI list --all` connects as v2v does",
    )


def _timeout(shown: str) -> SourceError:
    return SourceError(
        f"{shown} did not answer within {ANSWER_SECONDS:.0f} s",
        id="libvirt-timeout",
        hint="is the host up, and the address right?",
    )


def _unknown(word: str, names: list[str], uri: str) -> SourceError:
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    there = f"there are: {', '.join(names[:NAMES_SHOWN])}{more}" if names else "there is none"
    return SourceError(
        f"{word}: {uri} has no VM of this name or UUID",
        id="libvirt-vm-unknown",
        hint=did_you_mean(word, names) or (there if names else f"{there}: is -ic right?"),
    )
