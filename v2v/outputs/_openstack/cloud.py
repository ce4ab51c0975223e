"""One cloud, as openstacksdk knows it: logged in to when it is first asked."""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from v2v import address, password
from v2v.cancel import Cancel
from v2v.errors import TargetError, UsageError
from v2v.optional import require
from v2v.outputs._openstack.bounds import bound_answers
from v2v.outputs._openstack.errors import UNREACHABLE, asking, is_missing, no_service
from v2v.outputs._openstack.options import LOGIN, REST, CloudOptions, given
from v2v.outputs._tls import check_cafile
from v2v.patience import in_thread
from v2v.run import Run
from v2v.texts import clean_name

T = TypeVar("T")

# Seconds that a server may be silent, unless the user's clouds.yaml has an api_timeout.
API_SECONDS = 60.0
ASK_SECONDS = 300.0  # for a question of several requests, such as a long list

LIBRARIES = ("keystoneauth", "openstack", "urllib3")  # that log to stderr where nobody listens
NOWHERE = logging.NullHandler()  # one, for a logger keeps each that it is given
PROJECT = "openstack-project"  # journal: its id; the job has made something there
SECRETS = ("password", "application_credential_secret", "token")


class Cloud:
    """`purpose` begins errors: "-o glance"."""

    def __init__(self, options: CloudOptions, *, purpose: str) -> None:
        self._options = options
        self._purpose = purpose
        self._connection: Any = None
        self._asked_as: str | None = None  # for whom a password was asked
        self._lock = threading.Lock()

    def ask(
        self, what: str, action: Callable[[Any], T], run: Run, *, seconds: float = ASK_SECONDS
    ) -> T:
        """What `action` gives, which gets the connection and changes nothing that matters.

        It is left alone as soon as the job is cancelled.
        """
        return self._do(what, action, seconds=seconds, cancel=run.cancel)

    def find(self, what: str, action: Callable[[Any], T], run: Run) -> T | None:
        """The same; None when it is not there."""
        try:
            return self.ask(what, action, run)
        except TargetError as exc:
            if is_missing(exc):
                return None
            raise

    def change(self, what: str, action: Callable[[Any], T]) -> T:
        """For what changes something: its outcome is waited for, also when cancelled."""
        return self._do(what, action, seconds=ASK_SECONDS, cancel=None)

    def _do(
        self, what: str, action: Callable[[Any], T], *, seconds: float, cancel: Cancel | None
    ) -> T:
        connection = self._connected()
        with asking(what):
            try:
                return in_thread(
                    lambda: action(connection), name="openstack", seconds=seconds, cancel=cancel
                )
            except TimeoutError as exc:
                raise TargetError(
                    f"{what}: no answer within {seconds:.0f} s",
                    id="target-unreachable",
                    hint=UNREACHABLE,
                ) from exc

    def log_in(self, services: dict[str, str], run: Run) -> None:
        """Refuse a wrong login, a cloud without one of the services, which are {type: name}, and
        another project than that of the job's things."""
        try:
            self.ask("Keystone", lambda c: c.session.get_token(), run)
        except TargetError as exc:
            if exc.id == "target-login":
                self._forget()
            raise
        for kind, name in services.items():
            if self.ask(name, partial(_endpoint, kind), run) is None:
                raise no_service(name)
        self.check_project(run)

    def note_project(self, run: Run) -> None:
        """Write down whose the job's things are; to be called before the first of them is made."""
        run.journal.put(PROJECT, self._project(run))

    def check_project(self, run: Run) -> None:
        """Refuse a login to another project: what the job made is not to be seen there."""
        if PROJECT not in run.journal:
            return
        known, current = run.journal.get(PROJECT, str), self._project(run)
        if current != known:
            raise TargetError(
                f"this login is to project {current}; what the job made is in project {known}",
                id="target-project",
                hint="source the openrc file of that project, or set the OS_... variables for it",
            )

    def _project(self, run: Run) -> str:
        return clean_name(str(self.ask("Keystone", lambda c: c.current_project_id, run)))

    def _connected(self) -> Any:
        with self._lock:
            if self._connection is None:
                self._connection = self._connect()
            return self._connection

    def _forget(self) -> None:
        with self._lock:
            self._connection = None
        if self._asked_as is not None:
            password.forget_password(self._asked_as)

    def _connect(self) -> Any:
        sdk = require("openstack.connection", extra="openstack", purpose=self._purpose)
        loader = require("openstack.config", extra="openstack", purpose=self._purpose)
        from keystoneauth1.exceptions import ClientException
        from openstack.exceptions import ConfigException

        for name in LIBRARIES:
            logging.getLogger(name).addHandler(NOWHERE)
        words = self._words()
        try:
            known = loader.OpenStackConfig().get_one(validate=False, **words).config
            self._check_address(known)
            words["auth"].update(self._secret(known))
            if "api_timeout" not in known or known["api_timeout"] is None:
                words["api_timeout"] = API_SECONDS
            config = loader.OpenStackConfig().get_one(**words)
            self._check_certificates(config)
            connection = sdk.Connection(config=config)
        except (ConfigException, ClientException) as exc:
            raise self._incomplete(exc) from exc
        except (AttributeError, TypeError, ValueError) as exc:  # it may quote what is secret
            raise UsageError(
                f"{self._purpose}: clouds.yaml, or an OS_... variable, makes no sense",
                id="openstack-login",
                hint="`openstack --os-cloud NAME token issue` may tell what is wrong",
            ) from exc
        bound_answers(connection)
        weakref.finalize(self, connection.close)  # the library's caches keep it, and its sockets
        return connection

    def _incomplete(self, why: object) -> UsageError:
        return UsageError(
            f"{self._purpose}: the login is not complete: {why}",
            id="openstack-login",
            hint="set the OS_... variables (source the project's openrc), or name a cloud of "
            "clouds.yaml with -oo cloud=NAME",
        )

    def _check_address(self, known: dict[str, Any]) -> None:
        """The library takes any text for one, and then finds no service there."""
        found = (known.get("auth") or {}).get("auth_url")
        if found is None:
            return
        hint = "-oc or $OS_AUTH_URL is to be such as https://cloud.example.com:5000/v3"
        try:
            keystone = address.parse(str(found))
        except UsageError as exc:
            kind = exc.id if exc.id == "password-in-uri" else "option-value"
            raise UsageError(f"{self._purpose}: {exc.message}", id=kind, hint=hint) from exc
        if keystone.scheme not in ("http", "https") or not keystone.host:
            raise UsageError(
                f"{self._purpose}: {clean_name(str(found))} is not the address of a Keystone",
                id="option-value",
                hint=hint,
            )

    def _check_certificates(self, config: Any) -> None:
        verify, _ = config.get_requests_verify_args()
        if isinstance(verify, str) and not Path(verify).is_dir():
            check_cafile("-oo cafile" if self._options.cafile else "cacert", Path(verify))

    def _words(self) -> dict[str, Any]:
        options = self._options
        words: dict[str, Any] = {"auth": given(options, LOGIN), **given(options, REST)}
        if options.cloud:
            words["cloud"] = options.cloud
        if options.cafile:
            words["cacert"] = str(options.cafile)
        if not options.verify:
            words["verify"] = False
        credential = options.application_credential_id or options.application_credential_name
        if credential and not options.auth_type:
            words["auth_type"] = "v3applicationcredential"
        return words

    def _secret(self, known: dict[str, Any]) -> dict[str, str]:
        """The password or secret, unless the cloud's configuration has it and nobody gave another.

        V2V_OUTPUT_PASSWORD goes before OS_PASSWORD: it was meant for us.
        """
        auth = {**known, **(known.get("auth") or {})}
        asked_for = self._options.password or password.is_output_password_set()
        if not asked_for and any(auth.get(name) for name in SECRETS):
            return {}
        kind = str(known.get("auth_type") or "password")
        credential = "applicationcredential" in kind
        if not credential and "password" not in kind:
            return {}  # such as a login by ticket
        if not auth.get("auth_url"):
            raise self._incomplete("nobody tells Keystone's address")
        who = auth.get("username") or auth.get("user_id") or auth.get("application_credential_id")
        self._asked_as = f"{who or 'you'}@{auth['auth_url']}"
        found = password.output_password(self._options.password, what=self._asked_as)
        if found is None:
            raise UsageError(
                f"{self._purpose}: nobody tells the password of {self._asked_as}",
                id="openstack-login",
                hint="name the file that holds it with -op, or set $V2V_OUTPUT_PASSWORD",
            )
        return {"application_credential_secret" if credential else "password": found}


def _endpoint(kind: str, connection: Any) -> Any:
    return connection.config.get_session_endpoint(kind)
