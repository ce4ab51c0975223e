"""What the copy engine writes to."""

from v2v.copy.sinks._base import Feed, Sink, SinkLost, StreamingSink, is_streaming
from v2v.copy.sinks._pool import Pool
from v2v.copy.sinks.file import FileSink
from v2v.copy.sinks.nbd import NbdSink
from v2v.copy.sinks.null import NullSink

__all__ = [
    "Feed",
    "FileSink",
    "NbdSink",
    "NullSink",
    "Pool",
    "Sink",
    "SinkLost",
    "StreamingSink",
    "is_streaming",
]
