"""The libguestfs appliance: a small virtual machine in which guest disks are opened and changed.

Guest filesystems are never mounted on the host. The appliance's messages go to log/appliance.log
of the job. Close it before the NBD servers under it stop: its last writes are made at the end.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from v2v import accel
from v2v.endpoint import Endpoint
from v2v.errors import Cancelled, GuestError, HostError, V2VError
from v2v.job import ConversionOptions
from v2v.run import Run
from v2v.types import MiB

log = logging.getLogger(__name__)

LEAST_SPACE = 16 * MiB  # free where the overlays are; what the host needs while we stop
SPACE_SECONDS = 0.5  # between looks at it
KEY_MEMORY = 2048  # MiB; LUKS2's key derivation takes up to 1 GiB by itself
NO_SPACE = "No space left on device"
TRACE = "trace: "  # before each of our calls in the log
MAX_LOG = 64 * MiB  # a guest's program may print without end
KILL_AGAIN_SECONDS = 0.05  # between children of a launch, which come one after the other


class Appliance:
    """An appliance that is being launched by a thread of its own, or is up."""

    def __init__(self, endpoints: Sequence[Endpoint], options: ConversionOptions, run: Run) -> None:
        self._run = run
        self._log_path = run.folder / "log" / "appliance.log"
        self._log: IO[str] = self._log_path.open("a", encoding="utf-8", errors="replace")
        self._lock = threading.Lock()  # of what the cancelling thread looks at
        self._pid: int | None = None
        self._killed = False
        self._failure: BaseException | None = None
        self.died = False
        self.out_of_space = False
        try:
            self._g = self._configure(endpoints, options)
        except BaseException:
            self._log.close()
            raise
        self._thread = threading.Thread(target=self._launch, name="appliance", daemon=True)
        self._thread.start()

    def _configure(self, endpoints: Sequence[Endpoint], options: ConversionOptions) -> Any:
        guestfs = _binding()
        g = guestfs.GuestFS(python_return_dict=True)
        events = guestfs.EVENT_APPLIANCE | guestfs.EVENT_LIBRARY
        events |= guestfs.EVENT_TRACE | guestfs.EVENT_WARNING
        g.set_event_callback(self._write_log, events)
        g.set_event_callback(self._note_death, guestfs.EVENT_SUBPROCESS_QUIT)
        g.set_program("v2v")
        g.set_identifier("v2v")
        g.set_pgroup(True)  # Ctrl-C at the terminal is ours to handle, in order
        g.set_verbose(options.trace)  # makes the appliance's kernel talkative: some 3 s under TCG
        g.set_trace(True)
        g.set_tmpdir(str(self._run.tmp))
        g.set_backend("direct")
        if accel.accelerator(g.get_hv(), self._run.cancel) == "tcg":
            g.set_backend_setting("force_tcg", "1")
        g.set_network(options.appliance_network)
        _size(g, options)
        for endpoint in endpoints:
            _add_drive(g, endpoint)
        return g

    def _launch(self) -> None:
        try:
            _print_no_errors(self._g)
            self._g.launch()
            with self._lock:
                self._pid = self._g.get_pid()
        except BaseException as exc:  # noqa: BLE001  handed to the thread that waits
            self._failure = exc

    def result(self) -> Any:
        """Wait until the appliance is up, and give the guestfs handle."""
        self._thread.join()
        self._run.cancel.check()
        if self._failure is not None:
            words = self._last_words()
            hint = f"`v2v doctor` tells what is missing; all it said is in {self._log_path}"
            if NO_SPACE in words:
                hint = f"make room in {self._g.get_cachedir()} and {tempfile.gettempdir()}"
            raise HostError(
                f"the libguestfs appliance did not start: {words}",
                id="appliance-failed",
                hint=hint,
            ) from self._failure
        return self._g

    def _last_words(self) -> str:
        """What failed, and the end of the log; the rest of libguestfs's text is advice."""
        logged = self._log_path.read_text(errors="replace").splitlines()
        lines = [line.strip() for line in logged if line.strip() and not line.startswith(TRACE)]
        full = [line for line in lines if NO_SPACE in line]  # what follows is consequences
        told = [str(self._failure).partition("\n")[0], *(full[-1:] or lines[-3:])]
        return "; ".join(dict.fromkeys(told))[-600:]

    def kill(self) -> None:
        """Make a blocked call return, from another thread; the appliance is lost."""
        with self._lock:
            self._killed = True
            if self._pid is not None:
                _kill(self._pid)
                return
        while self._thread.is_alive():  # what it runs just now: supermin, then QEMU
            for child in _children(self._thread):
                _kill(child)
            self._thread.join(KILL_AGAIN_SECONDS)
        if self._pid is not None:
            _kill(self._pid)

    def shut_down(self) -> None:
        """Unmount everything and end the appliance. An error here means that writes were lost."""
        self._g.umount_all()
        self._g.sync()
        with self._lock:
            self._pid = None
        self._g.shutdown()

    def close(self) -> None:
        """Release everything, whatever state it is in; never raises."""
        if self._thread.is_alive():
            self.kill()
        self._thread.join()
        with self._lock:
            self._pid = None
        with contextlib.suppress(RuntimeError):
            self._g.close()
        self._log.close()

    def _write_log(self, event: int, handle: int, text: str, numbers: list[int]) -> None:
        if self._log.tell() < MAX_LOG:
            if event == _binding().EVENT_TRACE:
                text = TRACE + text
            self._log.write(text if text.endswith("\n") else f"{text}\n")
            self._log.flush()

    def _note_death(self, event: int, handle: int, text: str, numbers: list[int]) -> None:
        self.died = True


@contextmanager
def start_appliance(
    endpoints: Sequence[Endpoint], options: ConversionOptions, run: Run
) -> Iterator[Appliance]:
    """Launch an appliance with these disks in the background; `result()` waits for it.

    The disks are /dev/sda, /dev/sdb, ... in their order. Leaving the block without an error
    unmounts and shuts down, which must succeed. guestfs's own errors become V2VError.
    """
    run.cancel.check()
    appliance = Appliance(endpoints, options, run)
    try:
        with run.cancel.calling(appliance.kill), _watching_space(appliance, run):
            yield appliance
            appliance.result()
            appliance.shut_down()
    except Exception as exc:
        if (error := _translate(exc, appliance, run)) is exc:
            raise
        raise error from exc
    finally:
        appliance.close()


@contextmanager
def _watching_space(appliance: Appliance, run: Run) -> Iterator[None]:
    """End the appliance when its overlays cannot grow: its QEMU would wait for room forever."""
    done = threading.Event()

    def watch() -> None:
        while not done.wait(SPACE_SECONDS):
            if shutil.disk_usage(run.folder).free < LEAST_SPACE:
                appliance.out_of_space = True
                appliance.kill()
                return

    thread = threading.Thread(target=watch, name="space", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


@contextmanager
def open_appliance(
    endpoints: Sequence[Endpoint], options: ConversionOptions, run: Run
) -> Iterator[Any]:
    """As start_appliance, but gives the launched guestfs handle."""
    with start_appliance(endpoints, options, run) as appliance:
        yield appliance.result()


def _translate(exc: Exception, appliance: Appliance, run: Run) -> Exception:
    """What went wrong, seen from outside. A cancelled or dead appliance makes any call fail."""
    where = f"see {run.folder / 'log' / 'appliance.log'}"
    if run.cancel.cancelled:
        return Cancelled()
    if appliance.out_of_space:
        return HostError(
            f"{run.folder}: no room is left for what the conversion writes",
            id="no-space-jobs",
            hint="make room, or choose another place with --jobs-dir or $V2V_JOBS",
        )
    if appliance.died and not (isinstance(exc, V2VError) and exc.id == "appliance-failed"):
        return HostError("the libguestfs appliance died", id="appliance-died", hint=where)
    if type(exc) is RuntimeError or isinstance(exc, UnicodeDecodeError):
        return GuestError(
            f"the guest's disks cannot be worked on: {exc}", id="appliance-call", hint=where
        )
    return exc


def _binding() -> Any:
    try:
        import guestfs
    except ImportError as exc:
        raise HostError(
            "the Python binding of libguestfs is not installed",
            id="binding-missing",
            hint="install it: apt-get install python3-guestfs, or dnf install python3-libguestfs",
        ) from exc
    return guestfs


def _size(g: Any, options: ConversionOptions) -> None:
    memory = options.appliance_memory or (KEY_MEMORY if options.keys else None)
    if memory is not None:
        g.set_memsize(memory)
    if options.appliance_cpus is not None:
        g.set_smp(options.appliance_cpus)


def _add_drive(g: Any, endpoint: Endpoint) -> None:
    """Caching is unsafe because the disks are overlays; their owner flushes them at the end."""
    assert endpoint.socket is not None  # noqa: S101  overlays are served on Unix sockets
    g.add_drive_opts(
        endpoint.export,
        format="raw",
        protocol="nbd",
        server=[f"unix:{endpoint.socket}"],
        readonly=endpoint.read_only,
        cachemode=None if endpoint.read_only else "unsafe",
        discard="disable" if endpoint.read_only else "besteffort",
    )


def _children(thread: threading.Thread) -> list[int]:
    path = Path(f"/proc/self/task/{thread.native_id}/children")
    try:
        return [int(pid) for pid in path.read_text().split()]
    except OSError:
        return []


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _print_no_errors(g: Any) -> None:
    """Errors are exceptions. libguestfs keeps the handler that would print them too per thread,
    and the binding removes that of the thread alone which made the handle."""
    import libguestfsmod

    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.argtypes, pointer.restype = [ctypes.py_object, ctypes.c_char_p], ctypes.c_void_p
    handle = ctypes.c_void_p(pointer(g._o, b"guestfs_h"))
    ctypes.CDLL(libguestfsmod.__file__).guestfs_set_error_handler(handle, None, None)
