"""A script: the mask of every photo in a folder. Started again, it goes on where it was.

maskq up --env-file maskq.env &
set -a; . ./maskq.env; set +a      # once it says 'all ready'
python examples/masks_of_folder.py photos masks
"""

from __future__ import annotations

import sys
from pathlib import Path

from maskq import Client, JobFailed


def main(folder: str, target: str) -> int:
    """Returns how many photos have no mask."""
    photos, masks, failures = sorted(Path(folder).iterdir()), Path(target), 0
    masks.mkdir(exist_ok=True)
    with Client.from_env() as client:
        names, run_id = {}, f"masks of {Path(folder).resolve().name}"
        # Within a run each path is submitted once, also after a crash.
        for photo, job, error in client.submit_each(photos, run_id=run_id):
            if job:
                names[job.id] = Path(str(photo)).stem
            else:
                failures += 1
                print(error, file=sys.stderr)
        for job in client.batch(run_id, names).as_completed(timeout=600):
            try:
                job.result().mask().save(masks / f"{names[job.id]}.png")
            except JobFailed as error:
                failures += 1
                print(f"{names[job.id]}: {error.message}", file=sys.stderr)
    return failures


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]) > 0)
