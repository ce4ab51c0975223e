"""The HTTPS session of proxmoxer, with what it lacks: a certificate known by its fingerprint,
answers that end, large blocks, and a login that goes through the same session.

To be imported where it is used: it imports proxmoxer and requests.
"""

from __future__ import annotations

import io
import time
from typing import Any

import requests
from proxmoxer import AuthenticationError
from proxmoxer.backends.https import (
    JsonSerializer,
    ProxmoxHTTPApiTokenAuth,
    ProxmoxHTTPAuthBase,
    ProxmoxHttpSession,
)
from proxmoxer.core import ProxmoxResource
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError

from v2v.outputs._proxmox.options import TICKET_SECONDS, Place
from v2v.types import KiB, MiB

# To connect, and between two blocks: a server that writes to a slow disk stops for a while. How
# long a call may take that sends no file, its caller knows.
CONNECT_SECONDS, BLOCK_SECONDS = 10.0, 300.0
MAX_ANSWER = 16 * MiB  # bytes; the longest that is asked for is a task's log
RENEW_SECONDS = TICKET_SECONDS / 2
# Bytes of a file that are sent at once. 256 MiB over TLS take 0.21 s of processor time, as with
# 1 MiB; with urllib3's own 16 KiB they take 0.42 s.
BLOCK = 256 * KiB


def open_resource(place: Place, secret: str) -> Any:
    """The root of the API. Logs in, unless with a token; raises what requests raises, and
    AuthenticationError."""
    session = _Session()
    session.mount("https://", _Adapter(place.fingerprint))
    session.max_redirects = 0  # what is sent holds secrets
    common = {"timeout": (CONNECT_SECONDS, BLOCK_SECONDS), "verify_ssl": place.verify}
    if place.token is not None:
        session.auth = ProxmoxHTTPApiTokenAuth(place.user, place.token, secret, **common)
    else:
        session.auth = _TicketAuth(session, place, secret, common)
        session.auth.log_in()
    return ProxmoxResource(base_url=place.url, session=session, serializer=JsonSerializer())


class _Session(ProxmoxHttpSession):  # type: ignore[misc]
    def request(self, method: str, url: str, *args: Any, **more: Any) -> requests.Response:
        """The whole answer is read here, if it is not longer than any can be.

        The ticket is sent even if somebody on the way, who shares out connections, has set cookies
        of his own: proxmoxer would send those alone.
        """
        auth = more.get("auth") or self.auth
        if isinstance(auth, _TicketAuth):
            auth.renew(0.0 if _has_file(more.get("data")) else RENEW_SECONDS)
        more["cookies"] = auth.get_cookies()
        response: requests.Response = super().request(method, url, *args, stream=True, **more)
        try:
            with response:
                body = response.raw.read(MAX_ANSWER + 1, decode_content=True)
        except HTTPError as exc:  # as requests does it where it reads itself
            raise requests.ConnectionError(exc) from exc
        if len(body) > MAX_ANSWER:
            raise requests.exceptions.ContentDecodingError(f"more than {MAX_ANSWER} bytes")
        response._content, response._content_consumed = body, True
        return response


def _has_file(data: Any) -> bool:
    """The server looks at the ticket again once it has all of the file: it should be new."""
    return any(isinstance(word, io.IOBase) for word in (data or {}).values())


class _Adapter(HTTPAdapter):  # type: ignore[misc]
    def __init__(self, fingerprint: str | None) -> None:
        self._pool = {"assert_fingerprint": fingerprint, "blocksize": BLOCK}
        super().__init__()

    def init_poolmanager(self, *args: Any, **more: Any) -> None:
        super().init_poolmanager(*args, **more, **self._pool)

    def proxy_manager_for(self, proxy: str, **more: Any) -> Any:
        return super().proxy_manager_for(proxy, **more, **self._pool)


class _TicketAuth(ProxmoxHTTPAuthBase):  # type: ignore[misc]
    """A user's password buys a ticket, a cookie, and a token against forged requests."""

    def __init__(
        self, session: _Session, place: Place, password: str, common: dict[str, Any]
    ) -> None:
        super().__init__(**common)
        self._session = session
        self._url = f"{place.url}/access/ticket"
        self._words = {"username": place.user, "password": password}
        self._plain = ProxmoxHTTPAuthBase(**common)

    def log_in(self) -> None:
        response = self._session.request("POST", self._url, data=self._words, auth=self._plain)
        if response.status_code != requests.codes.ok:
            raise AuthenticationError(f"{response.status_code} {response.reason}")
        data = response.json()["data"]
        if data.get("NeedTFA"):
            raise AuthenticationError("the user has a second factor: use an API token")
        self._ticket, self._csrf = str(data["ticket"]), str(data["CSRFPreventionToken"])
        self._born = time.monotonic()

    def renew(self, age: float) -> None:
        """Log in again, if the ticket is older than so many seconds."""
        if time.monotonic() - self._born >= age:
            self.log_in()

    def get_cookies(self) -> Any:
        return requests.cookies.cookiejar_from_dict({"PVEAuthCookie": self._ticket})

    def __call__(self, request: Any) -> Any:
        if request.method != "GET":
            request.headers["CSRFPreventionToken"] = self._csrf
        return request
