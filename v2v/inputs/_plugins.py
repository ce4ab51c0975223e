"""-it nbdkit:NAME: disks through any plugin of nbdkit, with the parameters that the user gives.

    -it nbdkit:nfc -io server={server} -io vm=moref={moref} -io file={file} -io password=+/root/pw

Words in braces are what the input knows of the VM and the disk. There is no shell; each parameter
is one argument. Arguments can be seen by every user of this host, so that secrets are in files.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from v2v import nbd_client, nbdkit, options, process
from v2v.endpoint import Endpoint
from v2v.errors import SourceError, UsageError, V2VError
from v2v.options import free_options
from v2v.process import ToolError
from v2v.run import Run

TRANSPORT = "nbdkit:"  # how the word of -it begins
OWN = "nbdkit-"  # before a key that the input has as well: the plugin's is meant
FILTERS = ("retry",)  # of reads; a login that fails at first is not tried again
# What these are given is run: no word from a VM may get there.
PROGRAMS = ("cc", "data", "eval", "sh")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_FILE = re.compile(r".*/nbdkit-(.*)-plugin(\.so)?$")
_KEY = re.compile(r"[A-Za-z][A-Za-z0-9._-]*")  # as nbdkit has them
_WORD = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


def parameters_option() -> options.FREE:
    """The field of an input's options for the plugin's parameters."""
    found: options.FREE = free_options(
        "-io",
        "with -it nbdkit:NAME, a parameter of the plugin; in VALUE {server}, {user}, {moref}, "
        "{vm}, {file}, {path}, {disk} and {password-file} stand for what is known, {{ and }} for "
        f"braces; {OWN}KEY for a key that is listed here",
        only_with=("-it", TRANSPORT),
    )
    return found


def plugin_name(transport: str) -> str:
    """NAME, or an absolute path, of nbdkit:NAME. UsageError if it is neither."""
    name = transport.removeprefix(TRANSPORT)
    if not (_NAME.fullmatch(name) or name.startswith("/")):
        raise UsageError(
            f"-it {transport}: not the name of a plugin of nbdkit",
            id="plugin-name",
            hint="for example -it nbdkit:curl, or -it nbdkit:/path/to/nbdkit-NAME-plugin.so",
        )
    return name


def check_parameters(name: str, given: options.FREE, known: Collection[str]) -> None:
    """Refuse what cannot work whatever the disk is. `known`: words that may be in braces."""
    known = () if _FILE.sub(r"\1", name) in PROGRAMS else known
    for key, word in given:
        key = key.removeprefix(OWN)
        if not _KEY.fullmatch(key):
            raise UsageError(
                f"-io {key}: a parameter of nbdkit is not called like that",
                id="plugin-parameter",
                hint="letters, digits, dots, dashes and underscores, a letter first",
            )
        _filled(word, dict.fromkeys(known, ""), f"-io {key}")


def _filled(word: str, values: Mapping[str, str], flag: str) -> str:
    """The word with what its braces stand for."""

    def value(found: re.Match[str]) -> str:
        if found[0] in ("{{", "}}"):
            return found[0][0]
        if found[1] not in values:
            raise UsageError(
                f"{flag}: {found[0]} stands for nothing that is known here",
                id="plugin-parameter",
                hint="there are " + ", ".join(f"{{{name}}}" for name in values)
                if values
                else "write {{ and }} for braces",
            )
        return values[found[1]]

    return _WORD.sub(value, word)


@contextmanager
def serve_plugin(
    name: str, given: options.FREE, disks: Sequence[Mapping[str, str]], run: Run
) -> Iterator[Sequence[Endpoint]]:
    """Serve each disk by a process of its own. `disks`: what words in braces stand for, by disk;
    `disk` is its number, from 0, whether it is among them or not."""
    _check_installed(name)
    with ExitStack() as stack:
        served = []
        for index, values in enumerate(disks):
            known = {**values, "disk": str(index)}
            check_parameters(name, given, known)
            params = [
                f"{key.removeprefix(OWN)}={_filled(word, known, f'-io {key}')}"
                for key, word in given
            ]
            served.append(stack.enter_context(_serve(name, params, index, run)))
        yield served


@contextmanager
def _serve(name: str, params: Sequence[str], index: int, run: Run) -> Iterator[Endpoint]:
    server = f"source-{index}"
    with ExitStack() as stack:
        try:
            socket = stack.enter_context(
                nbdkit.serve(name, params, run=run, name=server, filters=FILTERS)
            )
            endpoint = nbd_client.describe(socket, cancel=run.cancel)
        except (ToolError, SourceError) as exc:
            raise _explained(exc, name, index, run.folder / "log" / f"{server}.log") from exc
        yield endpoint


def _explained(exc: V2VError, name: str, index: int, log: Path) -> V2VError:
    words = process.last_line(process.log_text(log)) or exc.message
    return SourceError(
        f"disk {index + 1}: nbdkit's plugin {name} does not serve it: {words}",
        id="source-serve",
        hint=f"the server's log is {log}; `nbdkit {name} --help` tells of its parameters",
    )


def _check_installed(name: str) -> None:
    if name.startswith("/"):
        if not Path(name).is_file():
            raise UsageError(
                f"-it {TRANSPORT}{name}: no such file",
                id="plugin-name",
                hint="give the path of a plugin of nbdkit, or its name",
            )
        return
    nbdkit.check_plugin(name, f"nbdkit-plugin-{name}", f"nbdkit-{name}-plugin")
