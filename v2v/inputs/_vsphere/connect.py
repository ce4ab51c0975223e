"""A session with the API of a vCenter or ESXi host, through VMware's own pyVmomi.

pyVmomi's objects ask the server when they are looked at. So all of that happens inside of
`Session.call`, which can be cancelled, ends in time, and logs in again where the session expired.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from importlib.util import find_spec
from typing import Any, TypeVar

from v2v.cancel import Cancel
from v2v.errors import HostError, SourceError, V2VError
from v2v.inputs._vsphere import errors
from v2v.inputs._vsphere.place import VspherePlace
from v2v.inputs._vsphere.tls import make_context
from v2v.password import find_password, forget_password, password_as_file
from v2v.patience import in_thread

T = TypeVar("T")

ANSWER_SECONDS = 120.0  # for one question; a list of thousands of VMs takes some ten
REQUEST_SECONDS = 60.0  # without a byte of an answer
LOGOUT_SECONDS = 5.0


def has_pyvmomi() -> bool:
    return find_spec("pyVmomi") is not None


class Session:
    def __init__(self, place: VspherePlace, *, cancel: Cancel | None) -> None:
        self.place = place
        self._cancel = cancel
        self._password = ""
        self._stub: Any = None
        self.content: Any = None  # vim.ServiceContent

    def call(
        self, action: Callable[[], T], *, seconds: float = ANSWER_SECONDS, changes: bool = False
    ) -> T:
        """What `action` gives, done in another thread; errors of the API as ours.

        It may be done twice: when the server says that nobody is logged in any more. What `changes`
        something is not left alone when the job is cancelled: who undoes it would see nothing yet.
        """
        from pyVmomi import vim

        def asked() -> T:
            try:
                return action()
            except vim.fault.NotAuthenticated:
                self._log_in()
                return action()

        return self._wait(asked, seconds, patient=changes)

    def log_in(self) -> None:
        what = who(self.place)
        password = find_password(self.place.password_file, what=what)
        if password is None:  # to try without one may lock the account
            raise errors.auth(self.place, "no password is given")
        self._password = password
        try:
            self._wait(self._connect, ANSWER_SECONDS)
        except SourceError as exc:
            if exc.id == "vsphere-auth":
                forget_password(what)  # who typed it may try again
            raise

    def log_out(self) -> None:
        """As far as that goes: a session that is left ends by itself."""
        if self.content is not None:
            with suppress(V2VError, TimeoutError):
                self._cancel = None
                self._wait(self.content.sessionManager.Logout, LOGOUT_SECONDS)

    def _connect(self) -> None:
        from pyVim.connect import SmartStubAdapter
        from pyVmomi import vim

        place = self.place
        try:
            self._stub = SmartStubAdapter(
                host=place.server,
                port=place.port,
                sslContext=make_context(place),
                httpConnectionTimeout=REQUEST_SECONDS,
            )
        except Exception as exc:
            if type(exc) is not Exception:  # how it says that no such server answers
                raise
            raise errors.unreachable(place, "no vSphere API answers there") from exc
        self.content = vim.ServiceInstance("ServiceInstance", self._stub).RetrieveContent()
        self._log_in()

    def _log_in(self) -> None:
        self.content.sessionManager.Login(self.place.user, self._password, None)

    def _wait(self, action: Callable[[], T], seconds: float, *, patient: bool = False) -> T:
        cancel = None if patient else self._cancel
        try:
            return in_thread(action, name="vsphere", seconds=seconds, cancel=cancel)
        except Exception as exc:
            clear = errors.wrapped(exc, self.place)
            if clear is exc:
                raise
            raise clear from exc


def who(place: VspherePlace) -> str:
    """For whom a password is asked for."""
    return f"{place.user} on {place.server}"


@contextmanager
def password_in_file(place: VspherePlace) -> Iterator[VspherePlace]:
    """The same place for other processes, which can ask nobody for a password, and cannot read
    <(pass show vcenter) again."""
    password = find_password(place.password_file, what=who(place))
    if password is None:
        yield place
        return
    with password_as_file(password) as file:
        yield replace(place, password_file=file)


@contextmanager
def connect(place: VspherePlace, *, cancel: Cancel) -> Iterator[Session]:
    """Log in, until the block ends.

    SourceError: `vsphere-auth`, `vsphere-unreachable`, `tls-untrusted`, `vsphere-permission`;
    HostError if pyVmomi is not installed.
    """
    if not has_pyvmomi():
        raise HostError(
            "pyVmomi, VMware's library for its API, is not installed",
            id="binding-missing",
            hint="install it: pip install pyvmomi, or apt-get install python3-pyvmomi",
        )
    session = Session(place, cancel=cancel)
    session.log_in()
    try:
        yield session
    finally:
        session.log_out()
