"""A whole job in a process of its own, to be killed: job.py GUEST JOBS WORDS (as JSON)."""

import json
import sys
from pathlib import Path

import v2v

if __name__ == "__main__":
    guest, jobs, words = sys.argv[1:]
    v2v.convert(
        guest,
        output="proxmox",
        output_options=json.loads(words),
        name="web",
        conversion=v2v.ConversionOptions(convert=False),
        jobs=Path(jobs),
    )
