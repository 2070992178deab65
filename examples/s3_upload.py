"""An upload starts a job with no code of ours: put images, find each mask or error by the upload's key.

maskq up --rules examples/uploads.toml --env-file maskq.env &
set -a; . ./maskq.env; set +a      # once it says 'all ready'
python examples/s3_upload.py photo.jpg
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import boto3
from botocore.exceptions import ClientError

BUCKET = os.environ["MASKQ_S3_BUCKET"]


def main(*photos: str, timeout_s: float = 120.0) -> int:
    """Returns how many photos have no mask."""
    s3 = boto3.client("s3", endpoint_url=os.environ.get("MASKQ_S3_ENDPOINT_URL"))
    for photo in photos:
        s3.upload_file(photo, BUCKET, f"incoming/{Path(photo).name}")
    failures, end = 0, time.monotonic() + timeout_s
    for photo in photos:
        stem = Path(photo).stem
        while not (found := first_of(s3, f"masks/{stem}.mask.png", f"masks/{stem}.error.json")):
            if time.monotonic() > end:
                sys.exit(
                    f"nothing of {photo}; is `maskq up --rules examples/uploads.toml` running?"
                )
            time.sleep(0.2)
        print(f"s3://{BUCKET}/{found}")
        if found.endswith(".json"):
            failures += 1
            document = json.load(s3.get_object(Bucket=BUCKET, Key=found)["Body"])
            print(document["error"]["message"], file=sys.stderr)
    return failures


def first_of(s3: Any, *keys: str) -> str | None:
    """The first of these objects that exists."""
    for key in keys:
        try:
            s3.head_object(Bucket=BUCKET, Key=key)
            return key
        except ClientError as error:
            if error.response["Error"]["Code"] != "404":
                raise
    return None


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]) > 0)
