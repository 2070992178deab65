"""A bucket of the embedded S3 server whose uploads are notified to a queue of the embedded SQS."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from maskq.process.stop_signal import StopSignal
from maskq_gateway.rules.rule import Rules
from maskq_gateway.settings import GatewaySettings
from maskq_gateway.sqs import process

if TYPE_CHECKING:
    from maskq_standalone.servers.s3 import S3Server


@dataclass(frozen=True)
class Uploads:
    """A bucket whose uploads are told in a queue."""

    s3: Any
    sqs: Any
    bucket: str
    url: str

    def put(self, key: str, body: bytes = b"an image") -> None:
        self.s3.put_object(Bucket=self.bucket, Key=key, Body=body)

    def send(self, body: str) -> None:
        self.sqs.send_message(QueueUrl=self.url, MessageBody=body)

    def left(self) -> int:
        """Messages, those in somebody's hand among them."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        answer = self.sqs.get_queue_attributes(QueueUrl=self.url, AttributeNames=names)
        return sum(int(answer["Attributes"][name]) for name in names)


@contextmanager
def notified_bucket(server: S3Server, name: str, *, visibility_s: int = 1) -> Iterator[Uploads]:
    """A bucket `uploads-{name}` and a queue `name`."""
    s3, queue = server.client(), server.client("sqs")
    bucket = f"uploads-{name}"
    attributes = {"VisibilityTimeout": str(visibility_s)}
    url = queue.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]
    named = queue.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])
    arn = named["Attributes"]["QueueArn"]
    allowed = {
        "Effect": "Allow",
        "Principal": {"Service": "s3.amazonaws.com"},
        "Action": "sqs:SendMessage",
        "Resource": arn,
    }
    policy = json.dumps({"Version": "2012-10-17", "Statement": [allowed]})
    queue.set_queue_attributes(QueueUrl=url, Attributes={"Policy": policy})
    s3.create_bucket(Bucket=bucket)
    told = {"QueueConfigurations": [{"QueueArn": arn, "Events": ["s3:ObjectCreated:*"]}]}
    s3.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration=told)
    yield Uploads(s3, queue, bucket, url)
    queue.delete_queue(QueueUrl=url)
    s3.close()
    queue.close()


@contextmanager
def reading(settings: GatewaySettings, rules: Rules) -> Iterator[None]:
    """The reader of the queue runs, in a thread."""
    stop, failed = StopSignal(), []

    def read() -> None:
        try:
            process.run(settings, rules, stop)
        except Exception as error:  # noqa: BLE001
            failed.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield
    finally:
        stop.request()
        thread.join(timeout=30)
    assert not thread.is_alive()
    assert failed == []
