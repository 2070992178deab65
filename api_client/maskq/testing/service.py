"""A deployment in memory, and the hands of a test on it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from maskq.client.image_source import ImageSource, read_image
from maskq.contract import FailureCode
from maskq.errors import MaskqError
from maskq.testing.deployment.ledger import FakeLedger
from maskq.testing.deployment.plans import Plans
from maskq.testing.deployment.stream import SECRET, Webhook

if TYPE_CHECKING:
    import PIL.Image

LABELS: Final = ("sky", "tree", "road", "building", "person", "car")
MODEL: Final = "demo"
LOOK_S: Final = 0.003  # between two looks of a wait
_MOST_LABELS: Final = 255  # of a mask of 8 bits

Post = Callable[[str, Mapping[str, str], bytes], int]
"""Sends a webhook: its URL, headers and body. Returns the receiver's HTTP status."""


class FakeService:
    """What clients of one test share. Thread-safe; a forked process gets a copy of its own.

    Jobs run as soon as they are submitted, all at the same time, and end after `takes_s`.
    """

    def __init__(
        self,
        *,
        takes_s: float = 0.0,
        model: str = MODEL,
        labels: Sequence[str] = LABELS,
        webhook_secret: str | None = None,
    ) -> None:
        """`takes_s`: seconds that each job takes. `labels`: the model's classes, at most 255.

        `webhook_secret`: signs webhooks; default: `maskq.testing.WEBHOOK_SECRET`.
        """
        if not 0 < len(labels) <= _MOST_LABELS:
            raise ValueError(f"a fake model has 1 to {_MOST_LABELS} labels, not {len(labels)}")
        self.model = model
        self.labels = tuple(labels)
        self.webhook_secret = webhook_secret or SECRET
        self.images: dict[str, bytes] = {}
        self.plans = Plans(takes_s)
        self.since_ms = time.time_ns() // 10**6
        self._ledger = FakeLedger(model, self.labels, self.webhook_secret)

    # --- what becomes of jobs -------------------------------------------------------------------------

    @property
    def takes_s(self) -> float:
        """Seconds that each job takes; set it before a submission."""
        return self.plans.takes_s

    @takes_s.setter
    def takes_s(self, seconds: float) -> None:
        self.plans.takes_s = seconds

    def fail_next(
        self, code: FailureCode | str = FailureCode.INTERNAL, message: str = "", *, times: int = 1
    ) -> None:
        """The next `times` jobs that are submitted will end as failed with this code."""
        self.plans.fail_next(code, message, times=times)

    def refuse_next(self, error: MaskqError, *, times: int = 1) -> None:
        """The next `times` submissions raise this error, such as `QueueFull("full")`."""
        self.plans.refuse_next(error, times=times)

    def set_mask(self, mask: PIL.Image.Image | None) -> None:
        """The mask of every job from now on (mode L or P, pixel = class id), of the image's size.

        None: masks are drawn again, each determined by its image's bytes or place.
        """
        self.plans.mask = mask

    def put_image(self, uri: str, image: ImageSource) -> None:
        """The image at an s3:// place or URL. A place without one is a gray image of 64x48 px."""
        self.images[uri] = read_image(image)[0]

    @property
    def objects(self) -> Mapping[str, bytes]:
        """What workers wrote, by s3:// place: outputs, copies under an output_name and error files."""
        self._ledger.advance()
        with self._ledger.lock:
            return dict(self._ledger.objects.bodies)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Inside the block jobs stay queued, as if there were no worker."""
        self._ledger.pause()
        try:
            yield
        finally:
            self._ledger.resume()

    @contextmanager
    def outage(self) -> Iterator[None]:
        """Inside the block every operation raises StoreUnavailable; waits go on, for a minute."""
        with self.plans.outage():
            yield

    # --- webhooks -------------------------------------------------------------------------------------

    @property
    def webhooks(self) -> Sequence[Webhook]:
        """The webhooks that wait to be delivered, signed, the oldest first."""
        self._ledger.advance()
        with self._ledger.lock:
            return self._ledger.stream.due()

    def deliver_webhooks(self, post: Post) -> int:
        """Post each webhook that waits, once; returns how many were answered with 2xx.

        `post` gets the URL, headers and body, and returns the receiver's status. With the test client
        of a web framework: `lambda url, headers, body: app.post(url, content=body,
        headers=headers).status_code`.
        """
        delivered = 0
        for webhook in self.webhooks:
            began = time.monotonic()
            status = post(webhook.url, webhook.headers, webhook.body)
            took_ms = round((time.monotonic() - began) * 1000)
            with self._ledger.lock:
                self._ledger.stream.tried(webhook.id, status, took_ms)
            delivered += 200 <= status < 300
        return delivered

    # --- for the clients ------------------------------------------------------------------------------

    def ledger(self) -> FakeLedger:
        """The jobs as of now. Raises StoreUnavailable during an outage."""
        self.plans.check_available()
        self._ledger.advance()
        return self._ledger
