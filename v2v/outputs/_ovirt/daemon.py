"""One connection to an ovirt-imageio daemon, through oVirt's own client of it.

The client shows its connection to nobody, but a request that hangs can be ended in no other way,
nor can all be heard that the daemon says: `_socket` and `_answer` look inside.
"""

from __future__ import annotations

import errno
import http.client
import logging
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from v2v import patience
from v2v.cancel import Cancel
from v2v.copy.sinks import Feed, SinkLost
from v2v.errors import TargetError, V2VError
from v2v.optional import require
from v2v.outputs._ovirt.places import Transfer
from v2v.texts import clean
from v2v.types import MiB

BUFFER = 1 * MiB  # bytes that are handed from the feed to the connection together
IDLE_SECONDS = 20.0  # then a connection may be dead: the daemon, or a firewall, hangs up
FORBIDDEN = 403
SERVER_FAILED = 500  # and above
REASON = 512  # bytes of what the daemon says about it
LOG = "/var/log/ovirt-imageio/daemon.log"
STRANGE = (ValueError, TypeError, LookupError, AttributeError, RuntimeError)  # answers: not JSON...


log = logging.getLogger(__name__)


class Connection:
    """One request at a time, for the thread that holds it.

    Raises SinkLost for what connecting again may repair, TargetError when the transfer is over or
    the certificate is not trusted, and another OSError for what the daemon refuses.
    """

    def __init__(self, transfer: Transfer, *, stall: float, cancel: Cancel) -> None:
        self.transfer = transfer
        self._stall = stall
        self._cancel = cancel
        self._gone = False
        self._client = self._connect()
        self._used = time.monotonic()

    @property
    def max_writers(self) -> int:
        with self._naming(*STRANGE):
            return max(int(self._client.max_writers), 1)

    def write(self, reader: Feed, offset: int, length: int) -> None:
        """One PUT."""
        with self._request() as client:
            try:
                client.read_from(reader, offset, length)
            except ssl.SSLEOFError as exc:
                raise (_answer(client) or exc) from exc

    def read(self, offset: int, buffer: memoryview) -> None:
        with self._request(*STRANGE) as client:
            client.write_to(_Filler(buffer), offset, len(buffer))

    def zero(self, offset: int, length: int) -> None:
        with self._request() as client:
            client.zero(offset, length)

    def flush(self) -> None:
        with self._request() as client:
            client.flush()

    def extents(self) -> list[Any]:
        """Objects with `start`, `length` and `zero`. The client remembers them: ask once."""
        with self._request(*STRANGE) as client:
            return list(client.extents())

    def close(self) -> None:
        self._client.close()

    def hang_up(self) -> None:
        """End the request under way, if there is one, in whatever thread."""
        self._gone = True
        _hang_up(self._client)

    @contextmanager
    def _request(self, *strange: type[Exception]) -> Iterator[Any]:
        if time.monotonic() - self._used > IDLE_SECONDS:
            self._renew()
        with self._naming(*strange):
            yield self._client
        self._used = time.monotonic()

    def _renew(self) -> None:
        self._client.close()
        try:
            self._client = self._connect()
        except TargetError as exc:
            raise SinkLost(errno.EACCES, exc.message) from exc
        if self._gone:  # meanwhile
            _hang_up(self._client)

    @contextmanager
    def _naming(self, *strange: type[Exception]) -> Iterator[None]:
        """`strange`: what the client raises when it does not understand an answer."""
        try:
            yield
        except Exception as exc:
            self._cancel.check()
            failure = _failure(exc, strange, self._text(exc))
            if failure is None:
                raise
            raise failure from exc

    def _text(self, error: Exception) -> str:
        """What it says, but for the ticket, which opens the transfer to anybody."""
        text = str(error)
        for url in (self.transfer.url, self.transfer.proxy_url):
            if url and (ticket := url.rpartition("/")[2]):
                text = text.replace(ticket, "...")
        return clean(text)

    def _connect(self) -> Any:
        try:
            with self._naming(*STRANGE):
                return self._open_either()
        except SinkLost as exc:
            if exc.errno == errno.EACCES:
                raise _ended(exc) from exc
            raise

    def _open_either(self) -> Any:
        """`transfer` has but the proxy's address from then on: a host behind a firewall that drops
        packets costs many seconds each time."""
        proxy = self.transfer.proxy_url
        try:
            return self._open(self.transfer.url)
        except ssl.SSLCertVerificationError:
            raise
        except OSError as exc:
            if proxy is None:
                raise
            log.info("%s; trying the proxy", self._text(exc))
        client = self._open(proxy)
        self.transfer = replace(self.transfer, url=proxy, proxy_url=None)
        return client

    def _open(self, url: str) -> Any:
        """A client that is connected."""
        imageio = require("ovirt_imageio.client", extra="ovirt", purpose="-o rhv-upload")
        transfer = self.transfer
        cafile = str(transfer.cafile) if transfer.cafile is not None else None
        client = patience.in_thread(
            lambda: imageio.ImageioClient(url, cafile, transfer.verify, buffer_size=BUFFER),
            name="imageio connection",
            seconds=self._stall,
            cancel=self._cancel,
        )
        if (found := _socket(client)) is not None:
            found.settimeout(self._stall)
        return client


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


class _Refused(Exception):
    """As the client's own error."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


def _answer(client: Any) -> _Refused | None:
    """Why the daemon hung up in the middle of a request, if it said so.

    It answers and hangs up when something fails, a write to a full disk for example. The client
    looks for the answer too, but not when it is TLS that finds the connection closed.
    """
    try:
        response = client._backend._con.getresponse()
        return _Refused(response.status, response.read(REASON).decode("utf-8", "replace").rstrip())
    except (OSError, http.client.HTTPException):
        return None


def _failure(error: Exception, strange: tuple[type[Exception], ...], text: str) -> Exception | None:
    """Our error for one of the client's; None: it is not the client's."""
    if isinstance(error, SinkLost | V2VError):
        return None
    status = getattr(error, "code", None)  # the class of the client's own error is private
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
    if isinstance(error, strange):
        return SinkLost(errno.EPROTO, f"the imageio daemon's answer is not understood: {text}")
    return None


def _refusal(status: int, text: str) -> OSError:
    if status == FORBIDDEN:
        return SinkLost(errno.EACCES, text)
    if status >= SERVER_FAILED:
        cause = f"the imageio daemon failed (HTTP {status}: {text}); {LOG} on its host tells why"
        return SinkLost(errno.EIO, f"{cause}: a full storage domain, for example")
    return OSError(errno.EINVAL, f"the imageio daemon refuses it: HTTP {status}: {text}")


def _ended(error: SinkLost) -> TargetError:
    return TargetError(
        f"the image transfer has ended, or was paused or cancelled: {error.strerror}",
        id="transfer-ended",
        hint="the engine's events tell why; `v2v resume` goes on with what is copied",
    )
