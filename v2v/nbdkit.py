"""nbdkit: what is installed, and one server for one disk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from v2v import process
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
) -> Iterator[Path]:
    """Serve one disk until the block ends; gives the Unix socket.

    `filters` are named outermost first; their parameters are among `params`. A secret is given as
    `password=+FILE`, never in its own words. The server's output is in log/NAME.log.
    """
    argv = ["nbdkit", "--foreground"]
    if read_only:
        argv.append("--readonly")
    if export:
        argv.append(f"--exportname={export}")
    argv += [f"--filter={one}" for one in filters]
    with process.nbd_server(
        [*argv, plugin, *params], "--pidfile", "--unix", run=run, name=name
    ) as socket:
        yield socket
