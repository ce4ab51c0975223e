"""Golden texts: what --print-source prints of a source, kept beside the metadata it is read from.

V2V_UPDATE_GOLDEN=1 writes them anew; look at the difference before you commit it.
"""

from __future__ import annotations

import os
from pathlib import Path

from v2v.cli.summary import source_text
from v2v.types import Source

FOLDER = Path(__file__).parent / "golden"


def check_golden(source: Source, golden: Path, folder: Path) -> None:
    """Compare the source's text with the file `golden`, a .txt. Paths in `folder` are $DIR/..."""
    text = source_text(source).replace(str(folder), "$DIR") + "\n"
    if os.environ.get("V2V_UPDATE_GOLDEN"):
        golden.write_text(text)
    assert text == golden.read_text(), f"{golden.name}: V2V_UPDATE_GOLDEN=1 writes it anew"
