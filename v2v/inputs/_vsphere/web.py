"""Requests for files to a vCenter or ESXi host: several connections that last, one session.

The password is sent once, for a cookie, and again only when the server says that the session has
ended: each login is a session of its own there, and a vCenter takes only so many.
"""

from __future__ import annotations

import base64
import http.client
import logging
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from queue import Empty, LifoQueue
from typing import TypeAlias, TypeVar

from v2v.cancel import Cancel
from v2v.inputs._vsphere import errors
from v2v.inputs._vsphere.place import VspherePlace
from v2v.inputs._vsphere.tls import make_context
from v2v.password import read_password
from v2v.texts import clean

log = logging.getLogger(__name__)

T = TypeVar("T")

COOKIE = re.compile(r'\s*(vmware_soap_session="?[\w./+=-]{1,512}"?)\s*(;|$)', re.ASCII)
CONNECT_SECONDS = 15.0
POLL_SECONDS = 1.0
NOT_LET_IN = (401, 403)
PASSING = (408, 429, 500, 502, 503, 504)  # statuses after which the same may go well


@dataclass(frozen=True, slots=True)
class Limits:
    """How patient a request is."""

    silence: float = 60.0  # seconds without a byte, after which a connection counts as lost
    patience: float = 300.0  # seconds over which the same is asked for again
    first: float = 10.0  # the same, as long as nothing has been had from the server
    locked: float = 3.0  # the same, where it fails with what is said of files in use
    first_wait: float = 0.5  # seconds between two tries; then twice that, and so on
    longest_wait: float = 15.0


class Lost(Exception):
    """The answer did not come, or not all of it."""


class Refused(Exception):
    """The answer is an HTTP status that is no success."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(f"HTTP {status} {clean(reason[:100])}".rstrip())
        self.status = status


Take: TypeAlias = Callable[[http.client.HTTPResponse], T]  # what a request is for


class Web:
    """For any thread. `ask` is a request until it went well or cannot."""

    def __init__(
        self, place: VspherePlace, *, connections: int, limits: Limits, cancel: Cancel
    ) -> None:
        self._place, self._limits, self._cancel = place, limits, cancel
        self._login = _login(place)
        context = make_context(place)
        self._all = [_unconnected(place, context) for _ in range(connections)]
        self._free: LifoQueue[http.client.HTTPSConnection] = LifoQueue()
        for one in self._all:
            self._free.put(one)
        self._entering = threading.Lock()
        self._denied = False  # never try a wrong password again: hosts lock users out
        self._headers: dict[str, str] = {}  # of who is logged in; replaced, never changed
        self._patience = 0.0  # until somebody answered: a wrong address is told at once

    def ask(self, method: str, url: str, headers: dict[str, str], take: Take[T]) -> T:
        """What `take` makes of the answer. It may be called again, after it raised Lost.

        Refused or Lost for what stays so; SourceError `vsphere-auth`, `vsphere-unreachable`,
        `tls-untrusted`.
        """
        began, wait = time.monotonic(), 0.0
        while True:
            try:
                return self._try(method, url, headers, take)
            except (Lost, Refused) as exc:
                if time.monotonic() - began >= self._patience_with(exc):
                    raise
                log.info("%s: %s; again in %.2g s", clean(url), exc, wait)
            self._cancel.wait(wait)
            wait = min(2 * wait or self._limits.first_wait, self._limits.longest_wait)

    def break_off(self) -> None:
        """End what is under way, in other threads."""
        for one in self._all:
            if one.sock is not None:
                with suppress(OSError):
                    socket.socket.shutdown(one.sock, socket.SHUT_RDWR)

    def close(self) -> None:
        self.break_off()
        with suppress(Empty):
            while True:
                self._free.get_nowait().close()

    def _patience_with(self, exc: Lost | Refused) -> float:
        if isinstance(exc, Refused):
            if exc.status not in PASSING:
                return 0.0
            if exc.status == 500:
                return min(self._limits.locked, self._patience)
        return self._patience

    def _try(self, method: str, url: str, headers: dict[str, str], take: Take[T]) -> T:
        with self._connection() as connection:
            login = self._headers or self._log_in(connection, url, self._headers)
            try:
                return self._send(connection, method, url, headers | login, take)
            except Refused as exc:
                if exc.status not in NOT_LET_IN:
                    raise
            login = self._log_in(connection, url, login)
            return self._send(connection, method, url, headers | login, take)

    def _log_in(
        self, connection: http.client.HTTPSConnection, url: str, expired: dict[str, str]
    ) -> dict[str, str]:
        """The headers of who is logged in. One thread does that, others get what it got."""
        with self._entering:
            if self._headers is expired and not self._denied:
                log.info("%s: logging in", self._place.shown)
                try:
                    self._send(connection, "HEAD", url, self._login, lambda answer: None)
                except Refused as exc:  # for other reasons: the request itself will hear them
                    self._denied = exc.status == 401
            if self._denied:
                raise errors.auth(self._place, "the user or the password is wrong")
            return self._headers

    def _send(
        self,
        connection: http.client.HTTPSConnection,
        method: str,
        url: str,
        headers: dict[str, str],
        take: Take[T],
    ) -> T:
        """One try. The connection is closed unless all of the answer was read."""
        self._cancel.check()
        try:
            self._connect(connection)
            self._cancel.check()  # `break_off` may have come when there was nothing to break
            connection.request(method, url, headers=headers)
            with connection.getresponse() as answer:
                if "Authorization" in headers and answer.status != 401:
                    self._keep_login(answer)
                if answer.status >= 300:
                    raise Refused(answer.status, answer.reason)
                result = take(answer)
                self._patience = self._limits.patience
                if method != "HEAD" and not answer.isclosed():
                    connection.close()
                return result
        except (OSError, http.client.HTTPException) as exc:
            connection.close()
            self._cancel.check()
            raise Lost(clean(str(exc)[:200]) or type(exc).__name__) from exc
        except BaseException:
            connection.close()
            raise

    def _connect(self, connection: http.client.HTTPSConnection) -> None:
        """Nothing is sent before the server is known to be the right one."""
        if connection.sock is not None:
            return
        try:
            connection.connect()
        except ssl.SSLCertVerificationError as exc:
            raise errors.untrusted(self._place, exc.verify_message) from exc
        except OSError as exc:
            if not self._patience:
                raise errors.unreachable(self._place, exc.strerror or str(exc)) from exc
            raise
        assert connection.sock is not None  # noqa: S101
        connection.sock.settimeout(self._limits.silence)

    def _keep_login(self, answer: http.client.HTTPResponse) -> None:
        """A cookie is used instead of the password from now on; some servers may give none."""
        cookies = map(COOKIE.match, answer.headers.get_all("Set-Cookie") or [])
        cookie = next(filter(None, cookies), None)
        self._headers = {"Cookie": cookie[1]} if cookie else dict(self._login)
        self._patience = max(self._patience, self._limits.first)

    @contextmanager
    def _connection(self) -> Iterator[http.client.HTTPSConnection]:
        """One that nobody else uses, the one that was used last: it is the fastest."""
        while True:
            self._cancel.check()
            try:
                one = self._free.get(timeout=POLL_SECONDS)
                break
            except Empty:
                continue
        try:
            yield one
        finally:
            self._free.put(one)


def _unconnected(place: VspherePlace, context: ssl.SSLContext) -> http.client.HTTPSConnection:
    """It takes no notice of the proxies that the environment names."""
    return http.client.HTTPSConnection(
        place.server, place.port, timeout=CONNECT_SECONDS, context=context
    )


def _login(place: VspherePlace) -> dict[str, str]:
    password = "" if place.password_file is None else read_password(place.password_file)
    login = f"{place.user}:{password}".encode("utf-8", "surrogateescape")
    return {"Authorization": "Basic " + base64.b64encode(login).decode()}
