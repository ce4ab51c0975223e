"""nbdkit: what is installed, and one server for one disk."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from v2v import process
from v2v.errors import HostError
from v2v.run import Run


@cache
def _config() -> dict[str, str]:
    lines = process.run_tool(["nbdkit", "--dump-config"], timeout=30).stdout.splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)


def version() -> tuple[int, ...]:
    """(1, 32, 5)"""
    return tuple(int(part) for part in _config()["version"].split(".") if part.isdigit())


def has_plugin(name: str) -> bool:
    folder = Path(_config()["plugindir"])
    return any((folder / f"nbdkit-{name}-plugin{end}").exists() for end in (".so", ""))


def has_filter(name: str) -> bool:
    return (Path(_config()["filterdir"]) / f"nbdkit-{name}-filter.so").exists()


def check_plugin(name: str, debian: str, rpm: str) -> None:
    """HostError that names its packages unless the plugin is installed."""
    if not has_plugin(name):
        raise HostError(
            f"nbdkit's {name} plugin is not installed",
            id="nbdkit-plugin-missing",
            hint=f"install it: apt-get install {debian}, or dnf install {rpm}",
        )


@cache
def python_version() -> tuple[int, ...]:
    """Which Python the python plugin is made of: (3, 11)"""
    told = process.run_tool(["nbdkit", "python", "--dump-plugin"], timeout=30).stdout
    found = re.search(r"^python_version=(\d+)\.(\d+)", told, re.MULTILINE)
    return tuple(map(int, found.groups())) if found else ()


def check_python() -> None:
    """HostError unless nbdkit can run our own code, with the packages that we have."""
    check_plugin("python", "nbdkit-plugin-python", "nbdkit-python-plugin")
    theirs, ours = python_version(), sys.version_info[:2]
    if theirs != ours:
        needed = ".".join(map(str, theirs))
        raise HostError(
            f"nbdkit's plugin runs Python {needed}, but v2v runs with {ours[0]}.{ours[1]}",
            id="nbdkit-python-version",
            hint="make v2v's environment with that one: "
            f"python{needed} -m venv --system-site-packages",
        )


@contextmanager
def serve(
    plugin: str,
    params: Sequence[str],
    *,
    run: Run,
    name: str,
    filters: Sequence[str] = (),
    read_only: bool = True,
    export: str = "",
    env: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
    seconds: float = process.START_SECONDS,
) -> Iterator[Path]:
    """Serve one disk until the block ends; gives the Unix socket.

    `filters` are named outermost first; their parameters are among `params`. A secret is given as
    `password=+FILE`, never in its own words. The server's output is in log/NAME.log. `env` and
    `pass_fds` are for the plugin; `seconds`: how long it may take to start.
    """
    argv = ["nbdkit", "--foreground"]
    if read_only:
        argv.append("--readonly")
    if export:
        argv.append(f"--exportname={export}")
    argv += [f"--filter={one}" for one in filters]
    with process.nbd_server(
        [*argv, plugin, *params],
        "--pidfile",
        "--unix",
        run=run,
        name=name,
        pass_fds=pass_fds,
        env=env,
        seconds=seconds,
    ) as socket:
        yield socket
