"""What vSphere's API answers in pieces, and what it refuses."""

from __future__ import annotations

import http.client
import ssl
from types import SimpleNamespace
from typing import Any

import pytest
from pyVmomi import vim, vmodl

from v2v.errors import SourceError
from v2v.inputs._vsphere.errors import wrapped
from v2v.inputs._vsphere.retrieve import retrieve_all
from v2v.inputs._vsphere.uri import read_place

PLACE = read_place("vpx://adm@vc:8443/DC")
COLLECTOR = vmodl.query.PropertyCollector


class Pages:
    """A server that gives two objects at a time, and a view that it is told to forget."""

    def __init__(self, count: int) -> None:
        self.left = [
            COLLECTOR.ObjectContent(
                obj=vim.VirtualMachine(f"vm-{number}"),
                propSet=[vmodl.DynamicProperty(name="name", val=f"web {number}")],
            )
            for number in range(count)
        ]
        self.views = 0
        self.viewManager = self.propertyCollector = self
        self.rootFolder = vim.Folder("group-d1")

    def CreateContainerView(self, *_: object) -> Any:
        self.views += 1
        view = vim.view.ContainerView("view-1")
        object.__setattr__(view, "DestroyView", self._forget)
        return view

    def _forget(self) -> None:
        self.views -= 1

    def RetrievePropertiesEx(self, _: object, options: Any) -> Any:
        return self.ContinueRetrievePropertiesEx("") if self.left else None

    def ContinueRetrievePropertiesEx(self, token: str) -> Any:
        assert token == (f"from {len(self.left)}" if token else "")
        page, self.left = self.left[:2], self.left[2:]
        return SimpleNamespace(objects=page, token=f"from {len(self.left)}" if self.left else None)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 5])
def test_an_inventory_that_comes_in_pieces_is_read_whole(count: int) -> None:
    server = Pages(count)
    found = list(retrieve_all(server, {"VirtualMachine": ["name"]}))
    assert [(one.id, one.get("name")) for one in found] == [
        (f"vm-{number}", f"web {number}") for number in range(count)
    ]
    assert server.views == 0


NOT_LET = vim.fault.NoPermission(privilegeId="Datastore.Browse", object=vim.Datastore("ds-1"))


@pytest.mark.parametrize(
    ("exc", "id", "words"),
    [
        (vim.fault.InvalidLogin(), "vsphere-auth", "adm"),
        (vim.fault.NotAuthenticated(), "vsphere-auth", "session"),
        (NOT_LET, "vsphere-permission", "Datastore.Browse on Datastore ds-1"),
        (vim.fault.TaskInProgress(msg="busy\x1b"), "vsphere-failed", "TaskInProgress: busy\ufffd"),
        (vmodl.fault.ManagedObjectNotFound(), "vsphere-failed", "does not say why"),
        (TimeoutError(), "vsphere-unreachable", "does not answer"),
        (ConnectionResetError(104, "reset"), "vsphere-unreachable", "reset"),
        (http.client.BadStatusLine("x"), "vsphere-unreachable", "https://vc:8443"),
        (ssl.SSLError(1, "wrong version number"), "vsphere-unreachable", "wrong version"),
        (ssl.SSLCertVerificationError(1, "no"), "tls-untrusted", "certificate"),
    ],
)
def test_what_it_refuses_is_told_clearly(exc: Exception, id: str, words: str) -> None:
    if isinstance(exc, ssl.SSLCertVerificationError):
        exc.verify_message = "self-signed"
    error = wrapped(exc, PLACE)
    assert isinstance(error, SourceError)
    assert error.id == id
    assert words in error.message
    assert error.hint


def test_errors_of_our_own_and_bugs_stay_what_they_are() -> None:
    for exc in (SourceError("x", id="vsphere-value"), KeyError("x")):
        assert wrapped(exc, PLACE) is exc
