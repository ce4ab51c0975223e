"""The words of a command line as what they ask for: a Job, its input and its output."""

from __future__ import annotations

import argparse
from collections import Counter
from typing import Any

from v2v import options, registry
from v2v.cli import copy_options
from v2v.errors import UsageError
from v2v.input import Input
from v2v.job import ConversionOptions, Job, ModuleChoice, StorageMap
from v2v.output import Output

INPUT_FLAGS = ("-if", "-ic", "-it", "-ip", "--vsphere-api")
OUTPUT_FLAGS = ("-os", "-of", "-oa", "-oc", "-op")


def to_job(args: argparse.Namespace, keys: tuple[str, ...]) -> Job:
    """The Job that the options of convert, or of inspect, ask for."""
    given = vars(args)
    return Job(
        input=input_choice(args),
        output=output_choice(args) if "-o" in given else ModuleChoice("null"),
        guests=tuple(args.guests),
        name=given.get("-on"),
        nic_maps=_without_duplicates(given.get("nic_maps") or []),
        storage_maps=_one_place_each(given.get("storage_maps") or []),
        conversion=_conversion(args, keys),
        boot_check=given.get("boot_check"),
        copy=copy_options.to_options(args),
    )


def input_choice(args: argparse.Namespace) -> ModuleChoice:
    given = vars(args)
    mode = given["-i"] or (registry.LIBVIRT if given["-ic"] else _guessed_input(args.guests))
    if mode == registry.LIBVIRT and given["-ic"]:  # virt-v2v reads VMware with -i libvirt, too
        mode = registry.input_at(given["-ic"])
    words = {flag: given[flag] for flag in INPUT_FLAGS if given[flag] is not None}
    cls = registry.named(mode, registry.inputs())
    return ModuleChoice(mode, words | _module_words("-io", args.io, cls))


def _guessed_input(guests: list[str]) -> str:
    return registry.guess_input(guests[0]) if guests else registry.PLAIN_INPUT


def output_choice(args: argparse.Namespace) -> ModuleChoice:
    given = vars(args)
    mode = given["-o"] or "local"
    cls = registry.named(mode, registry.outputs())
    words = {flag: given[flag] for flag in OUTPUT_FLAGS if given[flag] is not None}
    for flag in ("--force", "--start"):
        if given[flag.removeprefix("--")]:
            words[flag] = ""
    return ModuleChoice(mode, words | _module_words("-oo", args.oo, cls))


def _module_words(
    flag: str, given: list[str], cls: type[Input] | type[Output] | None = None
) -> dict[str, str]:
    """["compressed", "k=v"] as {"-oo compressed": "", "-oo k": "v"}.

    `cls` is None for a mode that there is not, which is told of later.
    """
    repeatable = options.repeatable(cls.Options) if cls else ()
    words: dict[str, str] = {}
    for word in given:
        key, _, value = word.partition("=")
        if f"{flag} {key}" in repeatable and f"{flag} {key}" in words:
            value = options.SEPARATOR.join((words.pop(f"{flag} {key}"), value))
        if f"{flag} {key}" in words:
            raise UsageError(f"{flag} {key} is given more than once", id="option-repeated")
        words[f"{flag} {key}"] = value
    return words


def _without_duplicates(maps: list[Any]) -> tuple[Any, ...]:
    """Two maps of the same network, bridge or MAC contradict each other."""
    seen = set()
    for one in maps:
        if (one.kind, one.source) in seen:
            what = f"{one.kind} {one.source}" if one.source else f"every {one.kind}"
            raise UsageError(f"{what} is mapped more than once", id="option-repeated")
        seen.add((one.kind, one.source))
    return tuple(maps)


def _one_place_each(maps: list[StorageMap]) -> tuple[StorageMap, ...]:
    """Two maps of the same disk or storage contradict each other."""
    for name, count in Counter(one.source for one in maps).items():
        if count > 1:
            raise UsageError(f"--storage {name} is mapped more than once", id="option-repeated")
    return tuple(maps)


def _conversion(args: argparse.Namespace, keys: tuple[str, ...]) -> ConversionOptions:
    """The defaults of ConversionOptions, except where the command line says otherwise."""
    given = vars(args)
    if args.root not in ("ask", "single", "first") and not args.root.startswith("/dev/"):
        raise UsageError(
            f"--root {args.root}: not ask, single, first or a device",
            id="option-value",
            hint=options.did_you_mean(args.root, ("ask", "single", "first"))
            or "for example --root /dev/sda2",
        )
    chosen = {name: given[name] for name in _CONVERSION if given.get(name) is not None}
    return ConversionOptions(
        root=args.root,
        keys=keys,
        appliance_memory=args.memsize,
        appliance_cpus=args.smp,
        trace=args.trace,
        **chosen,
    )


# Options of convert alone whose dest is a field of ConversionOptions.
_CONVERSION = (
    "convert",
    "block_bus",
    "fstrim",
    "appliance_network",
    "guest_agent",
    "initramfs",
    "keep_nic_names",
)


def image_words(args: argparse.Namespace) -> dict[str, str]:
    """The words of `add_image`, or of `v2v undo`, as the input takes them."""
    given = vars(args)
    words = {flag: given[flag] for flag in ("-if", "-ip") if given.get(flag) is not None}
    return words | _module_words("-io", args.io)
