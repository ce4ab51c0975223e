"""Conversion: repairs a guest in the libguestfs appliance so that it boots and runs well on KVM.

It gets endpoints and knows nothing of where the disks are. Names resolve when first used, so that
importing the package costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from conversion.converter import GuestfsConverter
    from conversion.no_conversion import NoConversion
    from v2v.converter import Converter
    from v2v.job import ConversionOptions

__all__ = ["GuestfsConverter", "NoConversion", "converter_for"]


def converter_for(options: ConversionOptions) -> Converter:
    """The converter that the options ask for."""
    from conversion.converter import GuestfsConverter
    from conversion.no_conversion import NoConversion

    return GuestfsConverter() if options.convert else NoConversion()


def __getattr__(name: str) -> object:
    if name == "GuestfsConverter":
        from conversion.converter import GuestfsConverter

        return GuestfsConverter
    if name == "NoConversion":
        from conversion.no_conversion import NoConversion

        return NoConversion
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
