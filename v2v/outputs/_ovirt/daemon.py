"""One connection to an ovirt-imageio daemon, through oVirt's own client of it.

The client shows its connection to nobody, but a request that hangs can be ended in no other way:
`_socket` is the one place that looks inside.
"""

from __future__ import annotations

import errno
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from v2v.cancel import Cancel
from v2v.copy.sinks import Feed, SinkLost
from v2v.errors import TargetError
from v2v.optional import require
from v2v.outputs._ovirt.places import Transfer
from v2v.texts import clean
from v2v.types import MiB

BUFFER = 1 * MiB  # bytes that are handed from the feed to the connection together
POLL_SECONDS = 0.1
IDLE_SECONDS = 20.0  # the daemon hangs up after a minute; the engine pauses an idle transfer then
FORBIDDEN = 403
SERVER_FAILED = 500  # and above
LOG = "/var/log/ovirt-imageio/daemon.log"


class Connection:
    """One request at a time, for the thread that holds it.

    Raises SinkLost for what connecting again may repair, TargetError when the transfer is over or
    the certificate is not trusted, and another OSError for what the daemon refuses.
    """

    def __init__(
        self, transfer: Transfer, *, stall: float, cancel: Cancel, seconds: float | None = None
    ) -> None:
        """`seconds` for connecting, where it is not to be as long as `stall`."""
        self._transfer = transfer
        self._stall = stall
        self._cancel = cancel
        self._gone = False
        self._client = self._connect(seconds or stall)
        self._used = time.monotonic()

    @property
    def max_writers(self) -> int:
        return max(int(self._client.max_writers), 1)

    def write(self, reader: Feed, offset: int, length: int) -> None:
        """One PUT."""
        with self._request() as client:
            client.read_from(reader, offset, length)

    def read(self, offset: int, buffer: memoryview) -> None:
        with self._request() as client:
            client.write_to(_Filler(buffer), offset, len(buffer))

    def zero(self, offset: int, length: int) -> None:
        with self._request() as client:
            client.zero(offset, length)

    def flush(self) -> None:
        with self._request() as client:
            client.flush()

    def extents(self) -> list[Any]:
        """Objects with `start`, `length` and `zero`. The client remembers them: ask once."""
        with self._request() as client:
            return list(client.extents())

    def touch(self) -> None:
        """Let the daemon, and the engine that looks at it, see that the transfer is in use."""
        if not self._is_fresh():
            self._renew()

    def close(self) -> None:
        self._client.close()

    def hang_up(self) -> None:
        """End the request under way, if there is one, in whatever thread."""
        self._gone = True
        _hang_up(self._client)

    def _is_fresh(self) -> bool:
        return time.monotonic() - self._used < IDLE_SECONDS

    def _renew(self) -> None:
        """Connect again: the client asks for the transfer's options then, which counts as use."""
        self._client.close()
        self._client = self._connect(self._stall)
        self._used = time.monotonic()
        if self._gone:  # meanwhile
            _hang_up(self._client)

    @contextmanager
    def _request(self) -> Iterator[Any]:
        self.touch()
        with self._naming():
            yield self._client
        self._used = time.monotonic()

    @contextmanager
    def _naming(self) -> Iterator[None]:
        try:
            yield
        except SinkLost:
            raise
        except Exception as exc:
            self._cancel.check()
            failure = _failure(exc)
            if failure is None:
                raise
            raise failure from exc

    def _connect(self, seconds: float) -> Any:
        with self._naming():
            try:
                return self._open(self._transfer.url, seconds)
            except ssl.SSLCertVerificationError:
                raise
            except OSError:
                if self._transfer.proxy_url is None:
                    raise
            return self._open(self._transfer.proxy_url, seconds)

    def _open(self, url: str, seconds: float) -> Any:
        """A client that is connected. It has timeouts of its own, which know nothing of `cancel`"""
        imageio = require("ovirt_imageio.client", extra="ovirt", purpose="-o rhv-upload")
        made: list[Any] = []
        failed: list[BaseException] = []

        def connect() -> None:
            transfer = self._transfer
            cafile = str(transfer.cafile) if transfer.cafile is not None else None
            try:
                made.append(imageio.ImageioClient(url, cafile, transfer.verify, buffer_size=BUFFER))
            except BaseException as exc:  # noqa: BLE001 - raised again by who waits
                failed.append(exc)

        thread = threading.Thread(target=connect, name="imageio connection", daemon=True)
        thread.start()
        deadline = time.monotonic() + seconds
        while thread.is_alive():
            thread.join(POLL_SECONDS)
            self._cancel.check()
            if thread.is_alive() and time.monotonic() > deadline:
                raise TimeoutError(errno.ETIMEDOUT, f"no answer for {seconds:g} s")
        for error in failed:
            raise error
        if (found := _socket(made[0])) is not None:
            found.settimeout(self._stall)
        return made[0]


class _Filler:
    """What the client writes an answer to."""

    def __init__(self, buffer: memoryview) -> None:
        self._rest = buffer

    def write(self, data: memoryview) -> None:
        self._rest[: len(data)] = data
        self._rest = self._rest[len(data) :]


def _socket(client: Any) -> socket.socket | None:
    found: socket.socket | None = getattr(client._backend._con, "sock", None)
    return found


def _hang_up(client: Any) -> None:
    """Without TLS's goodbye, which is not for two threads at once."""
    found = _socket(client)
    if found is None:
        return
    try:
        socket.socket.shutdown(found, socket.SHUT_RDWR)
    except OSError:
        return  # it is gone already


def _failure(error: Exception) -> Exception | None:
    """Our error for one of the client's; None: it is not the client's."""
    import http.client

    text = clean(str(error))
    status = getattr(error, "code", None)
    if isinstance(status, int) and not isinstance(error, OSError):
        return _refusal(status, text)
    if isinstance(error, ssl.SSLCertVerificationError):
        return TargetError(
            f"the certificate of the imageio daemon is not trusted: {clean(error.verify_message)}",
            id="target-untrusted",
            hint="-oo rhv-cafile names the engine's authority, which signs its hosts' certificates",
        )
    if isinstance(error, TimeoutError):
        return SinkLost(errno.ETIMEDOUT, f"the imageio daemon does not answer: {text}")
    if isinstance(error, OSError | http.client.HTTPException):
        return SinkLost(errno.ENOTCONN, f"the imageio daemon went away: {text}")
    if isinstance(error, ValueError | KeyError | RuntimeError):
        return SinkLost(errno.EPROTO, f"the imageio daemon's answer is not understood: {text}")
    return None


def _refusal(status: int, text: str) -> Exception:
    if status == FORBIDDEN:
        return TargetError(
            f"the image transfer has ended, or was paused or cancelled: {text}",
            id="transfer-ended",
            hint="the engine's events tell why; `v2v resume` goes on with what is copied",
        )
    if status >= SERVER_FAILED:
        cause = f"the imageio daemon failed (HTTP {status}: {text}); {LOG} on its host tells why"
        return SinkLost(errno.EIO, f"{cause}: a full storage domain, for example")
    return OSError(errno.EINVAL, f"the imageio daemon refuses it: HTTP {status}: {text}")
