"""What a succeeded job left: places in the store, and the objects themselves on demand."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from maskq.client.flow import (
    AsyncDriver,
    Blocking,
    BlockingDriver,
    Flow,
    RunsAsync,
    RunsBlocking,
    operation,
)
from maskq.contract import JobRecord, JobResult, Output
from maskq.contract.jobs import ClassStats
from maskq.contract.places import S3Place, is_url
from maskq.errors import InvalidRequest

if TYPE_CHECKING:
    import numpy as np
    import PIL.Image

    from maskq.client.objects import Objects


class ResultCore:
    """Places and numbers are at hand; `mask()`, `overlay()` and `logits()` fetch."""

    def __init__(self, record: JobRecord, objects: Objects, driver: Any) -> None:
        if record.result is None:
            raise InvalidRequest(f"job {record.id} is {record.status.value} and has no result")
        self._objects = objects
        self._driver = driver
        self.job_id = record.id
        self.details: JobResult = record.result

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the mask, px."""
        return self.details.width, self.details.height

    @property
    def labels(self) -> dict[int, str]:
        """Class id → label, of the classes present."""
        return self.details.labels

    @property
    def stats(self) -> list[ClassStats]:
        """Pixels and share per class present, the largest first."""
        return self.details.stats

    @property
    def mask_uri(self) -> str | None:
        """Where the mask is, if it was asked for."""
        return self.details.outputs.get(Output.MASK)

    def uri(self, output: Output | str) -> str:
        """Where an output is. Raises InvalidRequest if it was not asked for."""
        try:
            return self.details.outputs[Output(output)]
        except (KeyError, ValueError):
            made = ", ".join(sorted(self.details.outputs)) or "none"
            raise InvalidRequest(
                f"job {self.job_id} has no output {str(output)!r}, it made: {made}; "
                f"submit with outputs={{…}} to choose"
            ) from None

    @operation
    def read(self, output: Output | str) -> Flow[bytes]:
        """The bytes of an output, as stored."""
        return (yield from self._fetch(output))

    @operation
    def mask(self) -> Flow[PIL.Image.Image]:
        """The mask: mode P, pixel = class id, the image's own upright size."""
        return (yield from self._image(Output.MASK))

    @operation
    def overlay(self) -> Flow[PIL.Image.Image]:
        """The image with the mask's colours over it, RGB."""
        return (yield from self._image(Output.OVERLAY))

    @operation
    def logits(self) -> Flow[np.ndarray[Any, np.dtype[np.float32]]]:
        """Scores before the softmax, float32 (classes, height, width), at the model's own size."""
        import numpy as np

        body = yield from self._fetch(Output.LOGITS)
        scores: np.ndarray[Any, np.dtype[np.float32]] = np.load(
            io.BytesIO(body), allow_pickle=False
        )
        return scores

    def _fetch(self, output: Output | str) -> Flow[bytes]:
        uri = self.uri(output)
        if is_url(uri):
            raise InvalidRequest(
                f"it was put to the URL that the caller gave; read it there: {uri}"
            )
        place = S3Place.parse(uri)
        body: bytes = yield Blocking(lambda: self._objects.get(place))
        return body

    def _image(self, output: Output) -> Flow[PIL.Image.Image]:
        from PIL import Image

        body = yield from self._fetch(output)
        image = Image.open(io.BytesIO(body))
        image.load()
        return image

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of job {self.job_id}: {self.size[0]}x{self.size[1]}>"


class Result(ResultCore, RunsBlocking):
    """What a succeeded job left."""

    _driver: BlockingDriver


class AsyncResult(ResultCore, RunsAsync):
    """What a succeeded job left; what fetches is awaited."""

    _driver: AsyncDriver
