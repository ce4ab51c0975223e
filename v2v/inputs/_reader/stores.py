"""The store of a recipe, open."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TypeAlias

from v2v.cancel import Cancel
from v2v.inputs._reader.recipe import Recipe
from v2v.vmdk import LocalStore, Store

# What the user is to hear of how it is read.
Tell: TypeAlias = Callable[[str], None]


def open_store(recipe: Recipe, *, cancel: Cancel, tell: Tell) -> AbstractContextManager[Store]:
    """Where the files of a recipe are. Imports what it takes only now: paramiko is slow to load."""
    if recipe.ssh is not None:
        from v2v.inputs._ssh.choose import open_store as open_ssh

        return open_ssh(recipe.ssh, cancel=cancel, tell=tell)
    if recipe.folder is not None:
        from v2v.inputs._vsphere.folder import open_folder

        return open_folder(
            recipe.folder,
            through_vcenter=recipe.through_vcenter,
            datastores=recipe.datastores,
            cancel=cancel,
        )
    return LocalStore()
