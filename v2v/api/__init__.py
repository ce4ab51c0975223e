"""The library: start, resume, inspect and list jobs.

Everything here is typed and raises v2v.errors.V2VError. `emit` gets the job's events (v2v.events),
`cancel` is a v2v.cancel.Cancel that stops it. `import v2v` alone loads none of this.
"""

from v2v.api.calls import convert, inspect, open_disks
from v2v.api.execution import Result
from v2v.api.jobs import discard, limit_bandwidth, resume, start, undo
from v2v.api.listing import JobSummary, list_jobs
from v2v.api.looking import inspect_guest, list_guests, open_guest, print_source

__all__ = [
    "JobSummary",
    "Result",
    "convert",
    "discard",
    "inspect",
    "inspect_guest",
    "limit_bandwidth",
    "list_guests",
    "list_jobs",
    "open_disks",
    "open_guest",
    "print_source",
    "resume",
    "start",
    "undo",
]
