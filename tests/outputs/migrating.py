"""Whole jobs without a conversion, for tests of outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

import v2v
from v2v import api

AS_IT_IS = v2v.ConversionOptions(convert=False)


class Jobs:
    """Starts and resumes jobs of one output; `words` are its options."""

    def __init__(self, folder: Path, output: str) -> None:
        self.folder = folder
        self.output = output
        self.seen: list[v2v.Event] = []

    def convert(self, source: object, words: dict[str, str], **more: Any) -> v2v.api.Result:
        return self.convert_all((source,), words, **more)

    def convert_all(
        self, sources: Iterable[object], words: dict[str, str], **more: Any
    ) -> v2v.api.Result:
        return v2v.convert(
            *(str(source) for source in sources),
            output=self.output,
            output_options=words,
            conversion=AS_IT_IS,
            jobs=self.folder,
            emit=self.seen.append,
            **more,
        )

    def resume(self) -> v2v.api.Result:
        """The one job that there is; its source is known not to have changed."""
        (job,) = api.list_jobs(self.folder)
        return v2v.resume(
            job.job_id, source_unchanged=True, jobs=self.folder, emit=self.seen.append
        )

    def warned(self) -> list[str]:
        return [event.id for event in self.seen if isinstance(event, v2v.events.Warned)]


def refused(id: str, action: Callable[[], object]) -> v2v.V2VError:
    """`action` must fail with this id, and a hint."""
    with pytest.raises(v2v.V2VError) as caught:
        action()
    assert caught.value.id == id, caught.value
    assert caught.value.hint
    return caught.value
