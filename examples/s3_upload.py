"""An upload starts a job with no code of ours: put an object, see its mask appear.

maskq up --rules examples/uploads.toml --env-file maskq.env &
set -a; . ./maskq.env; set +a      # once it says 'all ready'
python examples/s3_upload.py photo.jpg
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import boto3

BUCKET = os.environ["MASKQ_S3_BUCKET"]


def main(photo: str, patience_s: float = 120.0) -> None:
    s3 = boto3.client("s3", endpoint_url=os.environ["MASKQ_S3_ENDPOINT_URL"])
    before = masks(s3)
    s3.upload_file(photo, BUCKET, f"incoming/{Path(photo).name}")
    end = time.monotonic() + patience_s
    while not (new := masks(s3) - before):
        if time.monotonic() > end:
            sys.exit("no mask has appeared; is `maskq up --rules examples/uploads.toml` running?")
        time.sleep(0.2)
    print(f"s3://{BUCKET}/{new.pop()}")


def masks(s3: object) -> set[str]:
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix="masks/")  # type: ignore[attr-defined]
    keys = {entry["Key"] for page in pages for entry in page.get("Contents", [])}
    return {key for key in keys if key.endswith("/mask.png")}


if __name__ == "__main__":
    main(*sys.argv[1:])
