"""-i http: a VM from disk images on web servers."""

from __future__ import annotations

from v2v.inputs._images import HTTP_SCHEMES
from v2v.inputs._plain import PlainInput


class HttpInput(PlainInput):
    mode = "http"
    aliases = ("https",)
    summary = "disk images on web servers: https://HOST/IMAGE"
    tools = ("nbdkit",)
    schemes = HTTP_SCHEMES
