"""Tasks: what the server does after it answered. Each is known by its UPID."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from v2v.errors import TargetError
from v2v.outputs._proxmox.api import Api
from v2v.texts import clean

# UPID:node:pid:pstart:starttime:type:id:user:
UPID = re.compile(
    r"UPID:([A-Za-z0-9][A-Za-z0-9.-]*):[0-9A-Fa-f]+:[0-9A-Fa-f]+:[0-9A-Fa-f]+:.{1,400}"
)
FIRST_WAIT, LONGEST_WAIT = 0.1, 3.0  # seconds between two looks
STOP_SECONDS = 300.0
PATIENCE = 120.0  # seconds in which a server that went away may come back
LAST_LINES = 3  # of a task's log, for the error
LOG_LINES = 100_000  # more than a task writes


@dataclass(frozen=True, slots=True)
class Status:
    status: str
    exitstatus: str = ""


@dataclass(frozen=True, slots=True)
class Active:
    upid: str


@dataclass(frozen=True, slots=True)
class Line:
    t: str = ""


def wait_for(api: Api, upid: str, doing: str, *, seconds: float = math.inf) -> None:
    """Returns when the task has done its work; TargetError with its last words when it failed.

    `doing` is for errors: "import the disks". A server that goes away for a while is waited for.
    """
    deadline = time.monotonic() + seconds
    status = _end_of(api, upid, doing, deadline)
    # A task that ends with warnings has done what it was to do.
    if status.exitstatus != "OK" and not status.exitstatus.startswith("WARNINGS"):
        raise _failed(api, upid, doing, status.exitstatus)


def _end_of(api: Api, upid: str, doing: str, deadline: float) -> Status:
    left = PATIENCE
    for pause in _pauses():
        if time.monotonic() > deadline:
            break
        try:
            status = api.get(_path(api, upid, "status"), Status, f"see whether to {doing} is done")
            if status.status == "stopped":
                return status
            left = PATIENCE
        except TargetError as exc:
            left -= pause
            if exc.id != "target-unreachable" or left < 0:
                raise
        api.run.cancel.wait(pause)
    raise TargetError(
        f"cannot {doing}: {api.place.host} has not ended it in time",
        id="target-timeout",
        hint="see the tasks of the node; then try again",
    )


def stop(api: Api, upid: str) -> None:
    """End the task; it clears what it made. One that has ended already is as well."""
    try:
        api.delete(_path(api, upid), object, "stop a task")
        wait_for(api, upid, "stop what was begun", seconds=STOP_SECONDS)
    except TargetError as exc:
        if exc.id not in ("target-refused", "target-task"):
            raise


def active(api: Api, node: str, kind: str, *, vmid: int | None = None) -> list[str]:
    """UPIDs of our user's tasks of a kind that have not ended: imgcopy, qmcreate."""
    more = {} if vmid is None else {"vmid": vmid}
    doing = "list the tasks"
    found = api.get(
        f"nodes/{node}/tasks", list[Active], doing, source="active", typefilter=kind, **more
    )
    user = api.place.user + (f"!{api.place.token}" if api.place.token else "")
    end = f":{kind}:{'' if vmid is None else vmid}:{user}:"
    return [one.upid for one in found if UPID.fullmatch(one.upid) and one.upid.endswith(end)]


def told(api: Api, upid: str, start: str) -> str:
    """The rest of the line of its log that begins so, as soon as there is one; empty if it ends
    without."""
    for pause in _pauses():
        ended = api.get(_path(api, upid, "status"), Status, "see a task").status == "stopped"
        for line in _log(api, upid):
            if line.t.startswith(start):
                return line.t.removeprefix(start).strip()
        if ended:
            return ""
        api.run.cancel.wait(pause)
    raise AssertionError("endless")


def settle(api: Api, upids: Iterable[str], *, end: bool = False) -> None:
    """Returns when none of them goes on. `end`: stop them."""
    for upid in upids:
        if end:
            stop(api, upid)
            continue
        try:
            wait_for(api, upid, "finish what was begun")
        except TargetError as exc:
            if exc.id != "target-task":
                raise


def _pauses() -> Iterator[float]:
    pause = FIRST_WAIT
    while True:
        yield pause
        pause = min(pause * 2, LONGEST_WAIT)


def _path(api: Api, upid: str, what: str = "") -> str:
    """Of the node that does the task, which is not always the one that gets the VM."""
    match = UPID.fullmatch(upid)
    if match is None or "/" in upid:
        raise TargetError(
            f"{api.place.host}: {clean(upid[:100])!r} is no task",
            id="target-answer",
            hint="-oc https://root@pam@HOST:8006",
        )
    return f"nodes/{match[1]}/tasks/{upid}" + (f"/{what}" if what else "")


def _log(api: Api, upid: str) -> list[Line]:
    return api.get(_path(api, upid, "log"), list[Line], "read a task's log", limit=LOG_LINES)


def _failed(api: Api, upid: str, doing: str, exitstatus: str) -> TargetError:
    lines = [line.t.strip() for line in _log(api, upid)]
    last = [clean(line)[:300] for line in lines if line][-LAST_LINES:]
    reason = clean(exitstatus)[:300]
    told = [line for line in last if reason not in line]
    return TargetError(
        f"cannot {doing}: {api.place.host} says: {reason}"
        + (f" (before that: {' / '.join(told)})" if told else ""),
        id="target-task",
        hint="what was copied is kept: when that is repaired, continue with `v2v resume`",
    )
