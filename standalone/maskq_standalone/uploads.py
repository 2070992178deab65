"""Uploads start jobs: the embedded store tells a queue of new objects, and a process reads it.

As on AWS, where a bucket's notifications go to SQS and `maskq trigger sqs` listens.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from maskq.contract.locations import S3Uri
from maskq_standalone.children.child import ChildError
from maskq_standalone.servers.s3 import S3Server

COMMAND = (sys.executable, "-m", "maskq_gateway.sqs")
QUEUE = "maskq-uploads"


def watched(rules: Path, own_output: S3Uri) -> set[str]:
    """The buckets that the rules watch. Raises ChildError with the first mistake in the file."""
    from maskq.errors import InvalidRequest
    from maskq_gateway.rules.rule import Rules

    try:
        return {rule.bucket for rule in Rules.load(rules, own_output=own_output).each}
    except InvalidRequest as error:
        raise ChildError(str(error)) from None


def connect(server: S3Server, buckets: set[str]) -> str:
    """Have the buckets, made when missing, tell the queue of new objects; returns the queue's URL.

    May be called again: after a crash the server has forgotten both. Raises ChildError.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        url, arn = _queue(server)
        for bucket in sorted(buckets):
            _tell(server, bucket, arn)
    except (BotoCoreError, ClientError) as error:
        raise ChildError(f"uploads cannot be watched: {error}") from None
    return url


def _queue(server: S3Server) -> tuple[str, str]:
    sqs = server.client("sqs")
    url: str = sqs.create_queue(QueueName=QUEUE)["QueueUrl"]
    answer = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])
    arn: str = answer["Attributes"]["QueueArn"]
    policy = json.dumps(_policy(arn))
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": policy})
    return url, arn


def _policy(arn: str) -> dict[str, Any]:
    allowed = {
        "Effect": "Allow",
        "Principal": {"Service": "s3.amazonaws.com"},
        "Action": "sqs:SendMessage",
        "Resource": arn,
    }
    return {"Version": "2012-10-17", "Statement": [allowed]}


def _tell(server: S3Server, bucket: str, arn: str) -> None:
    s3 = server.client()
    if bucket != server.bucket:
        s3.create_bucket(Bucket=bucket)  # there already: the same answer
    created = {"QueueArn": arn, "Events": ["s3:ObjectCreated:*"]}
    s3.put_bucket_notification_configuration(
        Bucket=bucket, NotificationConfiguration={"QueueConfigurations": [created]}
    )
