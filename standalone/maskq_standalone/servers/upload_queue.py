"""The queue to which the embedded S3 server sends a notification of each new object."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Final

QUEUE: Final = "maskq-uploads"


def connect(s3: Any, sqs: Any, buckets: Iterable[str]) -> str:
    """Make the queue, and have the buckets, which exist, send it a notification of each new object.

    Returns the queue's URL. It may be called again: after a crash the server has lost both. Raises what
    boto3 raises.
    """
    url: str = sqs.create_queue(QueueName=QUEUE)["QueueUrl"]
    answer = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])
    arn: str = answer["Attributes"]["QueueArn"]
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": json.dumps(_policy(arn))})
    created = {"QueueArn": arn, "Events": ["s3:ObjectCreated:*"]}
    for bucket in buckets:
        s3.put_bucket_notification_configuration(
            Bucket=bucket, NotificationConfiguration={"QueueConfigurations": [created]}
        )
    return url


def _policy(arn: str) -> dict[str, Any]:
    allowed = {
        "Effect": "Allow",
        "Principal": {"Service": "s3.amazonaws.com"},
        "Action": "sqs:SendMessage",
        "Resource": arn,
    }
    return {"Version": "2012-10-17", "Statement": [allowed]}
