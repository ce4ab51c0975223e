"""Proxmox VE's REST API: each call has a limit, listens to `run.cancel`, and ends in our errors."""

from __future__ import annotations

import hashlib
import re
import ssl
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import msgspec

from v2v import patience
from v2v.cancel import Cancel
from v2v.errors import TargetError, V2VError
from v2v.optional import require
from v2v.outputs._proxmox.options import MODE, TOKEN, Place, ProxmoxOptions, place_of
from v2v.password import forget_password, output_password
from v2v.run import Run
from v2v.texts import clean

T = TypeVar("T")
GiveUp = Callable[[threading.Thread], None]

CALL_SECONDS = 90.0
UPLOAD_SECONDS = 30 * 86400.0  # a link that stops for a minute ends it anyway
LEAVE_SECONDS = 15.0  # until an upload is left alone that was cancelled
LOOK_SECONDS = 10.0
TOKEN_SECRET = re.compile("[!-~]+")
REASON_CHARACTERS = 500
GATEWAY = (502, 503, 504, 595, 596, 597, 599)  # a node does not answer another: AnyEvent's codes


class Api:
    """`call` does one thing there. For one thread at a time."""

    def __init__(self, root: Any, place: Place, run: Run) -> None:
        self.place = place
        self.run = run
        self._root = root

    def uncancelled(self) -> Api:
        """The same, for a short call whose answer must be known."""
        return Api(self._root, self.place, self.run.part(cancel=Cancel()))

    def get(self, path: str, kind: type[T], doing: str, /, **params: Any) -> T:
        """What is there, as a `kind`. `doing` is for errors: "list the nodes"."""
        return self._call(doing, kind, lambda: self._root(path).get(**params))

    def find(self, path: str, kind: type[T], doing: str, /, **params: Any) -> T | None:
        """The same; None for what is not there."""
        try:
            return self.get(path, kind, doing, **params)
        except TargetError as exc:
            if exc.id == "target-refused" and "does not exist" in exc.message:
                return None
            raise

    def post(self, path: str, kind: type[T], doing: str, /, **data: Any) -> T:
        return self._call(doing, kind, lambda: self._root(path).post(**data))

    def delete(self, path: str, kind: type[T], doing: str, /, **params: Any) -> T:
        return self._call(doing, kind, lambda: self._root(path).delete(**params))

    def upload(self, path: str, kind: type[T], doing: str, /, **data: Any) -> T:
        """A value of `data` that is a file is sent as one, block by block.

        One that is cancelled ends at its next block; or all is sent already, and the server's task
        is to be known by the time that this returns.
        """
        return self._call(
            doing,
            kind,
            lambda: self._root(path).post(**data),
            UPLOAD_SECONDS,
            lambda thread: thread.join(LEAVE_SECONDS),
        )

    def _call(
        self,
        doing: str,
        kind: type[T],
        action: Callable[[], Any],
        seconds: float = CALL_SECONDS,
        give_up: GiveUp | None = None,
    ) -> T:
        answer = _guarded(doing, action, self.place, self.run, seconds, give_up)
        try:
            return msgspec.convert(answer, kind, strict=False)
        except msgspec.ValidationError as exc:
            raise _strange(doing, _short(exc), self.place) from exc


def open_api(options: ProxmoxOptions, run: Run) -> Api:
    """Log in. Raises TargetError: target-login, target-untrusted, target-unreachable."""
    asked = place_of(options)
    for module in ("requests", "requests_toolbelt", "proxmoxer"):
        require(module, extra="proxmox", purpose=MODE)
    place, secret = _credentials(options, asked)
    from v2v.outputs._proxmox.session import open_resource

    try:
        root = _guarded("log in", lambda: open_resource(place, secret), place, run)
        api = Api(root, place, run)
        api.get("version", object, "log in")
    except TargetError:
        forget_password(asked.who)
        raise
    return api


def _credentials(options: ProxmoxOptions, place: Place) -> tuple[Place, str]:
    """Who logs in, and with which password, or secret of a token."""
    secret = output_password(options.password, what=place.who)
    if secret is None:
        raise TargetError(
            f"{place.who}: no {'secret' if place.token else 'password'} is given",
            id="target-login",
            hint="-op FILE names a file whose first line it is",
        )
    if match := TOKEN.fullmatch(secret):
        return replace(place, user=match[1], token=match[2]), match[3]
    if place.token and not TOKEN_SECRET.fullmatch(secret):  # it would be shown in an error
        raise _not_logged_in("what -op holds is no secret of a token", place)
    return place, secret


def _guarded(
    doing: str,
    action: Callable[[], T],
    place: Place,
    run: Run,
    seconds: float = CALL_SECONDS,
    give_up: GiveUp | None = None,
) -> T:
    try:
        return patience.in_thread(
            action, name="proxmox", seconds=seconds, cancel=run.cancel, give_up=give_up
        )
    except V2VError:
        raise
    except Exception as exc:
        raise failure(exc, doing, place) from exc


def failure(error: Exception, doing: str, place: Place) -> TargetError:
    """Our error for one of proxmoxer's, or of what it sends with."""
    from proxmoxer import AuthenticationError, ResourceException
    from requests import RequestException

    if isinstance(error, ResourceException):
        reason = error.content if not error.errors else f"{error.content} {_parameters(error)}"
        return refusal(error.status_code, _short(reason), doing, place)
    if isinstance(error, AuthenticationError):
        return _not_logged_in(_short(error), place)
    text = _short(error)
    if "CERTIFICATE_VERIFY_FAILED" in text or "ingerprints did not match" in text:
        return _untrusted(place)
    if isinstance(error, RequestException | TimeoutError | OSError):
        return TargetError(
            f"cannot {doing}: {place.host}:{place.port} cannot be reached: "
            f"{_reason(error) or 'it does not answer'}",
            id="target-unreachable",
            hint="see whether it runs, and whether -oc has the right host and port",
        )
    return _strange(doing, text, place)


def refusal(status: int, reason: str, doing: str, place: Place) -> TargetError:
    if status == 401:
        return _not_logged_in(reason, place)
    if status == 403:
        return TargetError(
            f"{place.who} may not {doing}: {reason}",
            id="target-forbidden",
            hint="Datacenter > Permissions gives a user or a token a role on a path",
        )
    if status in GATEWAY:
        return TargetError(
            f"cannot {doing}: {place.host} does not reach the node: {status} {reason}",
            id="target-unreachable",
            hint="see whether the node runs; `v2v resume` goes on when it does",
        )
    return TargetError(
        f"cannot {doing}: {place.host} refuses: {status} {reason}", id="target-refused"
    )


def seen_fingerprint(place: Place) -> str:
    """Of the certificate that whoever answers there shows, for people to compare. Nothing is sent
    to them. Empty if nobody answers."""
    try:
        pem = ssl.get_server_certificate((place.host, place.port), timeout=LOOK_SECONDS)
    except (OSError, ValueError):
        return ""
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).digest().hex(":").upper()


def _untrusted(place: Place) -> TargetError:
    seen = seen_fingerprint(place)
    wanted = "not the one of -oo fingerprint" if place.fingerprint else "not trusted"
    return TargetError(
        f"the certificate of {place.host}:{place.port} is {wanted}"
        + (f"; its SHA-256 fingerprint is {seen}" if seen else ""),
        id="target-untrusted",
        hint="compare it with node > System > Certificates at the server's own console, and give "
        "-oo fingerprint=SHA256; or give -oo cafile=FILE with a copy of /etc/pve/pve-root-ca.pem",
    )


def _strange(doing: str, text: str, place: Place) -> TargetError:
    return TargetError(
        f"cannot {doing}: {place.url} does not answer as Proxmox VE does: {text}",
        id="target-answer",
        hint="-oc https://root@pam@HOST:8006",
    )


def _not_logged_in(reason: str, place: Place) -> TargetError:
    what = "token" if place.token else "password"
    return TargetError(
        f"{place.host} does not take the {what} of {place.who}: {reason}",
        id="target-login",
        hint="see -op, the user in -oc with its realm (root@pam), and -oo token-id",
    )


def _parameters(error: Any) -> str:
    """Which parameter was wrong, and why."""
    found = error.errors
    if isinstance(found, dict):
        return "; ".join(f"{name}: {why}" for name, why in found.items())
    return str(found)


def _reason(error: BaseException) -> str:
    """What the innermost of several errors says, which names no address of memory."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return _short(error)


def _short(text: object) -> str:
    return clean(str(text))[:REASON_CHARACTERS].strip()
