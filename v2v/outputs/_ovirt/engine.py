"""The engine's REST API, through oVirt's own client of it.

The client blocks, in part without a time limit, and shows whatever went wrong as it came: here
each call gets a limit, listens to `run.cancel`, and ends in one of our errors.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from v2v import patience
from v2v.cancel import Cancel
from v2v.errors import TargetError, V2VError
from v2v.optional import require
from v2v.outputs._ovirt.options import MODE, Login, UploadOptions, login
from v2v.password import forget_password, output_password
from v2v.run import Run
from v2v.texts import clean, clean_name, some

T = TypeVar("T")

CALL_SECONDS = 90.0  # a busy engine takes its time for a VM with many disks
LOGOUT_SECONDS = 10.0
FIRST_WAIT, LONGEST_WAIT = 0.05, 2.0  # seconds between two looks at what the engine does
REASON_CHARACTERS = 500
CURL = re.compile(r"\(.*?(\d+), ['\"](.*)['\"]\)", re.DOTALL)  # how curl's errors are quoted
UNTRUSTED = (60, 51, 83, 90, 91)  # curl: certificate, host name, issuer, pinned key, status
BAD_CAFILE = (77,)
SYSTEM_CAFILES = (
    Path("/etc/ssl/certs/ca-certificates.crt"),
    Path("/etc/pki/tls/certs/ca-bundle.crt"),
)

log = logging.getLogger(__name__)


class Engine:
    """`call` does one thing there. The client is for one thread at a time."""

    def __init__(self, sdk: Any, connection: Any, where: Login, run: Run) -> None:
        self.sdk = sdk
        self.types = sdk.types
        self.where = where
        self.run = run
        self._connection = connection

    def call(self, doing: str, action: Callable[[Any], T]) -> T:
        """What `action` gives for the API's root. `doing` is for errors: "list the clusters"."""
        return self._call(doing, action, self.run.cancel)

    def change(self, doing: str, action: Callable[[Any], T]) -> T | None:
        """The same for what changes something, None where that is gone. It is not left alone when
        the job is cancelled: what comes of it must be seen by who cleans up."""
        self.run.cancel.check()
        return self._call(doing, self._or_none(action), None)

    def make(
        self, doing: str, action: Callable[[Any], T], there: Callable[[], T | None]
    ) -> T | None:
        """`change` for what makes something: `there` gives it, or None. When an answer is lost curl
        asks again, on a connection that was in use before, and is refused what is made by then."""
        try:
            return self.change(doing, action)
        except TargetError as exc:
            if exc.id not in ("target-refused", "target-unreachable"):
                raise
            if isinstance(exc.__cause__, TimeoutError):  # the client is still busy with it
                raise
            if (found := there()) is None:
                raise
            log.info("the answer was lost: %s", exc)
            return found

    def _call(self, doing: str, action: Callable[[Any], T], cancel: Cancel | None) -> T:
        try:
            return patience.in_thread(
                lambda: action(self._connection.system_service()),
                name="engine",
                seconds=CALL_SECONDS,
                cancel=cancel,
            )
        except V2VError:
            raise
        except Exception as exc:
            raise failure(exc, doing, self.where, self.sdk) from exc

    def find(self, doing: str, action: Callable[[Any], T]) -> T | None:
        """The same as `call`; None for what is not there."""
        return self.call(doing, self._or_none(action))

    def _or_none(self, action: Callable[[Any], T]) -> Callable[[Any], T | None]:
        def look(system: Any) -> T | None:
            try:
                return action(system)
            except self.sdk.NotFoundError:
                return None

        return look

    def wait(self, what: str, look: Callable[[], T | None], seconds: float) -> T:
        """What `look` gives once it gives something. `what` is for errors: "disk ... is locked"."""
        deadline, pause = time.monotonic() + seconds, FIRST_WAIT
        while (found := look()) is None:
            if time.monotonic() > deadline:
                raise TargetError(
                    f"{self.where.host}: {what} for {seconds:g} s",
                    id="target-timeout",
                    hint="the events in the engine's portal tell why; then `v2v resume`",
                )
            self.run.cancel.wait(pause)
            pause = min(pause * 2, LONGEST_WAIT)
        return found

    def close(self) -> None:
        """Log out. What cannot be told any more does not matter: sessions end by themselves."""
        try:
            patience.in_thread(
                self._connection.close, name="engine", seconds=LOGOUT_SECONDS, cancel=None
            )
        except Exception as exc:  # noqa: BLE001  nothing depends on it
            log.info("logging out of %s: %s", self.where.host, clean(str(exc)))


@contextmanager
def open_engine(options: UploadOptions, run: Run) -> Iterator[Engine]:
    """Log in. Raises TargetError: target-login, target-untrusted, target-unreachable."""
    where = login(options)
    sdk = require("ovirtsdk4", extra="ovirt", purpose=MODE)
    password = output_password(options.password, what=where.who)
    if password is None:
        raise TargetError(
            f"{where.who}: no password is given",
            id="target-login",
            hint="-op FILE names a file whose first line is the password",
        )
    connection = sdk.Connection(
        url=where.url,
        username=where.user,
        password=password,
        ca_file=_authorities(options),
        insecure=not options.verify_peer,
        timeout=int(CALL_SECONDS),
    )
    engine = Engine(sdk, connection, where, run)
    try:
        engine.call("log in", lambda system: connection.authenticate())
    except TargetError as exc:
        if exc.id == "target-login":
            forget_password(where.who)
        raise
    try:
        yield engine
    finally:
        engine.close()


def shown(words: Iterable[str]) -> str:
    """Names for an error."""
    listed = sorted(clean_name(word) for word in set(words))
    return some(listed) or "none"


def _authorities(options: UploadOptions) -> str | None:
    """The client brings a libcurl along that may look for the system's in another system's place"""
    known = [options.cafile] if options.cafile else SYSTEM_CAFILES
    found = [str(path) for path in known if path.is_file()]
    return found[0] if found and options.verify_peer else None


def failure(error: Exception, doing: str, where: Login, sdk: Any) -> TargetError:
    """Our error for one of the client's."""
    text = clean(str(error))[:REASON_CHARACTERS]
    if isinstance(error, sdk.AuthError):
        return _not_allowed(error, text, doing, where)
    if "esponse code" not in text and (found := CURL.search(str(error))):
        return _not_connected(int(found[1]), clean(found[2])[:REASON_CHARACTERS], doing, where)
    if isinstance(error, sdk.ConnectionError | sdk.TimeoutError | TimeoutError):
        return _not_connected(0, text or "it does not answer", doing, where)
    if isinstance(error, sdk.Error) and getattr(error, "code", None):
        return TargetError(
            f"cannot {doing}: {where.host} refuses: {_reason(error) or text}",
            id="target-refused",
            hint="mend what it names; the events in the engine's portal may tell more",
        )
    return TargetError(
        f"cannot {doing}: {where.url} does not answer as an engine does: {text}",
        id="target-answer",
        hint="-oc https://ENGINE/ovirt-engine/api",
    )


def _not_connected(number: int, text: str, doing: str, where: Login) -> TargetError:
    """`number` of curl's error."""
    if number in UNTRUSTED:
        return TargetError(
            f"the certificate of {where.host} is not trusted: {text}",
            id="target-untrusted",
            hint=f"curl -k -o ca.pem '{where.certificate_url}', compare its fingerprint with the "
            "engine's own, and give it with -oo rhv-cafile=ca.pem",
        )
    if number in BAD_CAFILE:
        return TargetError(
            f"-oo rhv-cafile: no certificates can be read from it: {text}",
            id="target-untrusted",
            hint=f"it must be PEM, as from curl -k -o ca.pem '{where.certificate_url}'",
        )
    return TargetError(
        f"cannot {doing}: the engine at {where.host} cannot be reached: {text}",
        id="target-unreachable",
        hint="see whether it runs, and whether -oc has the right host and port",
    )


def _not_allowed(error: Exception, text: str, doing: str, where: Login) -> TargetError:
    if doing == "log in":
        return TargetError(
            f"the engine does not take the password of {where.who}: {text}",
            id="target-login",
            hint="see -op; the user is a part of -oc: https://admin@internal@ENGINE/...",
        )
    return TargetError(
        f"{where.who} may not {doing}: {_reason(error) or text}",
        id="target-login",
        hint="give that user a role for it on the storage domain and the cluster",
    )


def _reason(error: Any) -> str:
    """The engine's own words; several begin with a bracket each."""
    fault = getattr(error, "fault", None)
    words = [getattr(fault, "detail", None), getattr(fault, "reason", None)]
    return clean(next((word for word in words if word), ""))[:REASON_CHARACTERS]
