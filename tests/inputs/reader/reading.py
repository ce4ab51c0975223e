"""An input whose disks are recipes, so that the contract of inputs can be tried on them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from v2v.endpoint import Endpoint
from v2v.input import Input
from v2v.inputs._reader.recipe import Recipe
from v2v.inputs._reader.serve import read_vmdk, serve_recipe
from v2v.options import NoOptions
from v2v.run import Run
from v2v.types import DiskFormat, Source, SourceDisk


class ReaderInput(Input):
    mode = "reader"
    summary = "disks of recipes"
    Options = NoOptions

    def __init__(self, *recipes: Recipe) -> None:
        super().__init__(NoOptions(), [recipe.path for recipe in recipes])
        self.recipes = recipes

    def read_source(self, run: Run) -> Source:
        found = [(recipe.path, read_vmdk(recipe, run)) for recipe in self.recipes]
        disks = (
            SourceDisk(path, DiskFormat.VMDK, facts.size, files=facts.files)
            for path, facts in found
        )
        return Source(name="reader", input=self.mode, disks=tuple(disks))

    @contextmanager
    def serve(self, source: Source, run: Run) -> Iterator[Sequence[Endpoint]]:
        with ExitStack() as stack:
            yield [
                stack.enter_context(serve_recipe(recipe, run, f"source-{index}"))
                for index, recipe in enumerate(self.recipes)
            ]
