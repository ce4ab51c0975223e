"""Many properties of many objects with one question, as vSphere's PropertyCollector answers it.

Asked one by one, a thousand VMs would be thousands of round trips.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

PAGE = 200  # objects of an answer: some MiB where their devices are asked for

Wanted = Mapping[str, Sequence[str]]  # vim's name of a type, with dots: paths of properties


@dataclass(frozen=True, slots=True)
class Found:
    """An object, and what the server told of it; what it does not have, or not tell, is absent."""

    id: str  # its managed object reference: vm-42
    kind: str  # vim's name of its type: VirtualMachine
    properties: Mapping[str, Any]

    def get(self, path: str) -> Any:
        return self.properties.get(path)


def retrieve_all(content: Any, wanted: Wanted) -> Iterator[Found]:
    """Everything of these types below the root of the inventory, some of it at a time. Go through
    it in Session.call."""
    from pyVmomi import vim, vmodl

    collector = vmodl.query.PropertyCollector
    types = [_type(kind) for kind in wanted]
    view = content.viewManager.CreateContainerView(content.rootFolder, types, True)
    try:
        walk = collector.TraversalSpec(type=vim.view.ContainerView, path="view", skip=False)
        start = collector.ObjectSpec(obj=view, skip=True, selectSet=[walk])
        yield from _retrieve(content, [start], wanted)
    finally:
        with suppress(vmodl.MethodFault, OSError):  # it ends with the session
            view.DestroyView()


def retrieve_these(content: Any, objects: Sequence[Any], paths: Sequence[str]) -> list[Found]:
    """These objects, which are of one type. ManagedObjectNotFound if one of them is gone."""
    from pyVmomi import vmodl

    if not objects:
        return []
    specs = [vmodl.query.PropertyCollector.ObjectSpec(obj=one) for one in objects]
    return list(_retrieve(content, specs, {type(objects[0]).__name__.removeprefix("vim."): paths}))


def reference(content: Any, kind: str, id: str) -> Any:
    """The object of a reference; nothing is asked."""
    return _type(kind)(id, content.propertyCollector._stub)


def _retrieve(content: Any, objects: Sequence[Any], wanted: Wanted) -> Iterator[Found]:
    from pyVmomi import vmodl

    collector = vmodl.query.PropertyCollector
    properties = [
        collector.PropertySpec(type=_type(kind), pathSet=list(paths), all=False)
        for kind, paths in wanted.items()
    ]
    spec = collector.FilterSpec(objectSet=list(objects), propSet=properties)
    answer = content.propertyCollector.RetrievePropertiesEx(
        [spec], collector.RetrieveOptions(maxObjects=PAGE)
    )
    while answer is not None:
        for one in answer.objects:
            yield Found(
                one.obj._moId,
                type(one.obj).__name__.removeprefix("vim."),
                {prop.name: prop.val for prop in one.propSet},
            )
        if not answer.token:
            return
        answer = content.propertyCollector.ContinueRetrievePropertiesEx(answer.token)


def _type(kind: str) -> Any:
    from pyVmomi import vim

    found: Any = vim
    for part in kind.split("."):
        found = getattr(found, part)
    return found
