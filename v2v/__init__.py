"""v2v moves virtual machines to KVM. The public names are v2v.api's, resolved when first used."""

__version__ = "0.1.0"
