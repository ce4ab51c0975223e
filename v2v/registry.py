"""Finds the modes: every module of v2v.inputs and v2v.outputs that does not start with `_`.

A module holds one subclass of Input or Output, with a `mode`. Importing them all is cheap: they
import third-party bindings only when they are used.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterable
from pathlib import Path, PurePath
from types import ModuleType
from typing import TypeVar

import v2v.inputs
import v2v.outputs
from v2v import address, options
from v2v.errors import UsageError
from v2v.input import Input
from v2v.job import Job, ModuleChoice
from v2v.output import Output

C = TypeVar("C", bound=Input | Output)

# How a guest's name ends: the input that reads it, where none is chosen.
ENDINGS = {".ova": "ova", ".ovf": "ova", ".vmx": "vmx", ".vmtx": "vmx", ".xml": "libvirtxml"}
FOLDERS = (".ovf", ".vmx")  # what a folder of a VM holds
PLAIN_INPUT = "disk"  # reads all that has none of these endings

# How an address of -ic begins: the input that reads the VMs there. LIBVIRT reads all others.
CONNECTIONS = {"vpx": "vsphere", "esx": "vsphere", "esx+ssh": "vmx"}
LIBVIRT = "libvirt"


def inputs() -> dict[str, type[Input]]:
    """Every input mode by name."""
    return _modes(v2v.inputs, Input)  # type: ignore[type-abstract]


def outputs() -> dict[str, type[Output]]:
    """Every output mode by name."""
    return _modes(v2v.outputs, Output)  # type: ignore[type-abstract]


def find_input(mode: str) -> type[Input]:
    return _find(mode, inputs(), "-i")


def find_output(mode: str) -> type[Output]:
    return _find(mode, outputs(), "-o")


def guess_input(guest: str) -> str:
    """The input mode for a guest, from its name, or from what lies in the folder."""
    if guest.lower().startswith("nbd") and "://" in guest:
        return PLAIN_INPUT  # an export may have any name
    word = re.split("[?#]", guest)[0] if "://" in guest else guest
    endings = _endings_in(word) if word else set()
    ending = next((e for e in FOLDERS if e in endings), PurePath(word).suffix.lower())
    return ENDINGS.get(ending, PLAIN_INPUT)


def input_at(uri: str) -> str:
    """The input mode for the host at an address of -ic."""
    return CONNECTIONS.get(address.scheme_of(uri), LIBVIRT)


def _endings_in(folder: str) -> set[str]:
    try:
        return {file.suffix.lower() for file in Path(folder).iterdir()}
    except (OSError, ValueError):  # no folder
        return set()


def make_input(choice: ModuleChoice, guests: tuple[str, ...]) -> Input:
    cls = find_input(choice.mode)
    if not guests:
        raise UsageError(
            "no guest is named",
            id="guest-missing",
            hint="for example: v2v convert -i disk disk.vmdk -o local -os /var/tmp",
        )
    check_no_password([*guests, *choice.options.values()])
    return cls(options.parse(cls.Options, choice.options, module=f"-i {cls.mode}"), guests)


def make_output(job: Job) -> Output:
    cls = find_output(job.output.mode)
    return cls(options.parse(cls.Options, job.output.options, module=f"-o {cls.mode}"))


def anchored(job: Job) -> Job:
    """The same job with relative paths made absolute, so that it can be resumed from elsewhere.

    Jobs are journaled, so a password in an address is refused here.
    """
    check_no_password([*job.guests, *job.input.options.values()])
    check_no_password(job.output.options.values(), login=address.OUTPUT_LOGIN)
    input_, output = find_input(job.input.mode), find_output(job.output.mode)
    guests = job.guests
    if input_.guests_are_files and "-ic" not in job.input.options:  # there are names
        guests = tuple(word if "://" in word else str(Path(word).absolute()) for word in guests)
    agent = job.conversion.guest_agent
    if agent not in ("auto", "no"):
        agent = str(Path(agent).expanduser().absolute())
    return dataclasses.replace(
        job,
        guests=guests,
        conversion=dataclasses.replace(job.conversion, guest_agent=agent),
        input=ModuleChoice(job.input.mode, options.anchored(input_.Options, job.input.options)),
        output=ModuleChoice(job.output.mode, options.anchored(output.Options, job.output.options)),
    )


def check_no_password(words: Iterable[str], *, login: str = address.INPUT_LOGIN) -> None:
    """Refuse addresses that hold one: they are shown, and kept."""
    for word in (one for several in words for one in several.split(options.SEPARATOR)):
        if "://" in word:
            address.parse(word, login=login)


def _modes(package: ModuleType, base: type[C]) -> dict[str, type[C]]:
    found = {}
    for info in pkgutil.iter_modules(package.__path__):
        if not info.name.startswith("_"):
            module = importlib.import_module(f"{package.__name__}.{info.name}")
            cls = _mode_class(module, base)
            found[cls.mode] = cls
    return found


def _mode_class(module: ModuleType, base: type[C]) -> type[C]:
    own = [
        cls
        for _, cls in inspect.getmembers(module, inspect.isclass)
        if issubclass(cls, base) and cls.__module__ == module.__name__
    ]
    (cls,) = own
    return cls


def named(mode: str, known: dict[str, type[C]]) -> type[C] | None:
    """The mode of that name or alias, if there is one."""
    return next((cls for cls in known.values() if mode in (cls.mode, *cls.aliases)), None)


def _find(mode: str, known: dict[str, type[C]], flag: str) -> type[C]:
    if cls := named(mode, known):
        return cls
    raise UsageError(
        f"{flag} {mode}: no such mode",
        id="mode-unknown",
        hint=options.did_you_mean(mode, known) or f"`v2v modes` lists them: {', '.join(known)}",
    )
