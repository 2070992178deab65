"""A deployment in the hands of a test: a fake one, and a real one with the same operations."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, ClassVar

import boto3

from maskq import AsyncClient, Client, Event, Job, webhooks
from maskq.contract.ids import new_id
from maskq.contract.locations import S3Uri
from maskq.ledger import calls
from maskq.testing import FakeAsyncClient, FakeClient, image_bytes

SIZE = (60, 40)  # px, of the image that `World.submit` submits
UNKNOWN = "0199d3c0-0000-7000-8000-000000000000"  # the id of no job
IDLE = "idle"  # a model of the real deployment that no worker serves


class World(ABC):
    """A deployment in the hands of a test. The tests share the real one, so each has a tenant."""

    def __init__(self, client: Client, awaited: AsyncClient, tenant: str) -> None:
        self.client = client
        self.awaited = awaited
        self.tenant = tenant

    @abstractmethod
    def queued_jobs(self) -> AbstractContextManager[dict[str, Any]]:
        """Options of jobs that stay queued inside the block."""

    @abstractmethod
    def receiver(self) -> AbstractContextManager[tuple[str, list[Event]]]:
        """The URL of a receiver of webhooks, and the events that it has got."""

    @abstractmethod
    def deliver(self) -> None:
        """Deliver the webhooks that wait, unless that happens by itself."""

    @abstractmethod
    def objects(self, prefix: str) -> dict[str, bytes]:
        """The objects below an s3:// place, by their places."""

    def submit(self, **options: Any) -> Job:
        return self.client.submit(image_bytes(SIZE), tenant=self.tenant, **options)


class FakeWorld(World):
    def __init__(self, fake: FakeClient, tenant: str) -> None:
        super().__init__(fake, FakeAsyncClient(fake.fake), tenant)
        self.fake = fake.fake
        self.received: list[Event] = []

    @contextmanager
    def queued_jobs(self) -> Iterator[dict[str, Any]]:
        with self.fake.paused():
            yield {}

    @contextmanager
    def receiver(self) -> Iterator[tuple[str, list[Event]]]:
        yield "https://shop.example/hook", self.received

    def deliver(self) -> None:
        def post(url: str, headers: Any, body: bytes) -> int:
            self.received.append(webhooks.verify(headers, body))
            return 204

        self.fake.deliver_webhooks(post)

    def objects(self, prefix: str) -> dict[str, bytes]:
        found = self.fake.objects.items()
        return {place: body for place, body in found if place.startswith(f"{prefix}/")}


class RealWorld(World):
    @contextmanager
    def queued_jobs(self) -> Iterator[dict[str, Any]]:
        with Client.from_env(transport="direct") as direct:
            direct.session.run(calls.register_model(IDLE, {"revision": "1"}))
        yield {"model": IDLE}

    @contextmanager
    def receiver(self) -> Iterator[tuple[str, list[Event]]]:
        class Receiver(BaseHTTPRequestHandler):
            received: ClassVar[list[Event]] = []

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                self.received.append(webhooks.verify(dict(self.headers), body))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        with ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as server:
            Thread(target=server.serve_forever, daemon=True).start()
            yield f"http://127.0.0.1:{server.server_port}/", Receiver.received
            server.shutdown()

    def deliver(self) -> None:
        pass

    def objects(self, prefix: str) -> dict[str, bytes]:
        s3 = boto3.client("s3", endpoint_url=os.environ["MASKQ_S3_ENDPOINT_URL"])
        below = S3Uri.parse(prefix)
        listed = s3.list_objects_v2(Bucket=below.bucket, Prefix=f"{below.key}/")
        places = [S3Uri(below.bucket, entry["Key"]) for entry in listed.get("Contents", [])]
        return {
            str(at): s3.get_object(Bucket=at.bucket, Key=at.key)["Body"].read() for at in places
        }


def new_prefix(world: World) -> str:
    """An output_prefix that no other job has, in the bucket of the deployment."""
    mask = world.submit().wait(60).uri("mask")
    return f"s3://{S3Uri.parse(mask).bucket}/masks/{new_id()}"


def end_of_events(client: Client) -> str:
    """The cursor of the newest event."""
    last = "0"
    for event in client.events("0", idle=0.1):
        last = event.cursor
    return last
