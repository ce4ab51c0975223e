"""What vSphere's API refuses, as errors of ours."""

from __future__ import annotations

import http.client
import ssl
from typing import Any
from xml.etree.ElementTree import ParseError
from xml.parsers.expat import ExpatError

from v2v.errors import SourceError, V2VError
from v2v.inputs._vsphere.place import VspherePlace
from v2v.inputs._vsphere.tls import seen_thumbprint
from v2v.texts import clean

SHOWN = 300  # characters of a message


def wrapped(exc: BaseException, place: VspherePlace) -> BaseException:
    """A V2VError for what pyVmomi, or the connection under it, raised; others as they are."""
    from pyVmomi import vim, vmodl

    if isinstance(exc, V2VError):
        return exc
    if isinstance(exc, ssl.SSLCertVerificationError):
        return untrusted(place, exc.verify_message)
    if isinstance(exc, vim.fault.InvalidLogin):
        return auth(place, "the user or the password is wrong")
    if isinstance(exc, vmodl.fault.SecurityError | vim.fault.NoPermission):
        return _denied(place, exc)
    if isinstance(exc, TimeoutError | OSError | http.client.HTTPException):
        return unreachable(place, str(exc) or "it does not answer")
    if isinstance(exc, ExpatError | ParseError):
        return unreachable(place, "what answers there is not vSphere")
    if isinstance(exc, vmodl.MethodFault):
        return _failed(place, exc)
    if isinstance(exc, KeyError | TypeError | ValueError) and _is_of_pyvmomi(exc):
        return unreachable(place, f"its answer is not understood: {type(exc).__name__} {exc}")
    return exc


def _is_of_pyvmomi(exc: BaseException) -> bool:
    """So it ends where a server tells types that it does not know."""
    innermost, places = "", exc.__traceback__
    while places is not None:
        innermost, places = places.tb_frame.f_globals.get("__name__", ""), places.tb_next
    return innermost.partition(".")[0] in ("pyVmomi", "pyVim")


def untrusted(place: VspherePlace, why: str) -> SourceError:
    seen = "" if place.thumbprint else seen_thumbprint(place)
    own = f"the server's own fingerprint with -io thumbprint={seen or '...'}"
    return SourceError(
        f"{place.shown}: its certificate is not trusted: {clean(why[:SHOWN])}",
        id="tls-untrusted",
        hint=f"give the CA's certificate with -io cafile=FILE, or {own} once you have compared "
        "that with what its console shows; ?no_verify=1 in -ic trusts anybody",
    )


def unreachable(place: VspherePlace, why: str) -> SourceError:
    return SourceError(
        f"cannot ask {place.shown}: {clean(why[:SHOWN])}",
        id="vsphere-unreachable",
        hint="is the address right, the host up, and is it a vCenter (vpx://) or an ESXi (esx://)?",
    )


def auth(place: VspherePlace, why: str) -> SourceError:
    return SourceError(
        f"{place.shown} does not let {place.user} in: {why}",
        id="vsphere-auth",
        hint="the password is the first line of the file that -ip names; of a vCenter the user "
        "has a domain: administrator%40vsphere.local@VCENTER",
    )


def _denied(place: VspherePlace, exc: Any) -> V2VError:
    """NoPermission names the privilege that is missing; NotAuthenticated none at all."""
    privilege = getattr(exc, "privilegeId", None)
    if not privilege:
        return auth(place, "it ended the session")
    thing = getattr(exc, "object", None)
    what = f" on {type(thing).__name__.rpartition('.')[2]} {thing._moId}" if thing else ""
    return SourceError(
        f"{place.shown}: {place.user} lacks the privilege {clean(privilege)}{clean(what)}",
        id="vsphere-permission",
        hint="give a role with it to the user, in vSphere under Permissions; reading needs "
        "System.View, System.Read, Datastore.Browse and Datastore.FileManagement",
    )


def _failed(place: VspherePlace, exc: Any) -> SourceError:
    kind = type(exc).__name__.rpartition(".")[2]
    return SourceError(
        f"{place.shown}: {kind}: {clean(str(exc.msg or '')[:SHOWN]) or 'it does not say why'}",
        id="vsphere-failed",
        hint="the task list of the vSphere Client may tell more",
    )
