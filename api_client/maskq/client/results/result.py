"""The result of a succeeded job: where its outputs are, and the outputs themselves."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maskq.client.operations.flow import (
    AsyncDriver,
    BlockingDriver,
    Flow,
    RunBlocking,
    RunsAsync,
    RunsBlocking,
    operation,
)
from maskq.client.results.files import open_image, open_scores, refuse_damaged
from maskq.client.results.names import checked_stem, file_name, stem_of
from maskq.client.results.saving import write_file
from maskq.contract import JobRecord, JobResult, Output
from maskq.contract.jobs import ClassStats
from maskq.contract.locations import is_url
from maskq.contract.outputs import FILES, OutputName
from maskq.errors import InvalidRequest, MaskqError

if TYPE_CHECKING:
    import numpy as np
    import PIL.Image

    from maskq.client.session import Session


class ResultCore:
    """Holds URIs and numbers; `mask()`, `overlay()`, `rle()` and similar methods fetch outputs.

    They compare what they fetch with the job's record and raise ResultDamaged if it differs.
    """

    def __init__(self, record: JobRecord, session: Session) -> None:
        if record.result is None:
            raise InvalidRequest(f"job {record.id} is {record.status.value} and has no result")
        self._session = session
        self._driver: Any = session.driver
        self._record = record
        self.job_id = record.id
        self.details: JobResult = record.result
        self._has_legend = record.request.overlay_legend

    @property
    def source(self) -> str | None:
        """What was segmented: see `Job.source`."""
        return self._record.source

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the mask, px."""
        return self.details.width, self.details.height

    @property
    def labels(self) -> dict[int, str]:
        """Class id → label of each class in the mask."""
        return self.details.labels

    @property
    def stats(self) -> list[ClassStats]:
        """Pixels, share, box and regions of each class, largest first; empty without output stats."""
        return self.details.stats

    @property
    def mask_uri(self) -> str | None:
        """The mask's URI; None if the job has no output mask."""
        return self.details.outputs.get(Output.MASK)

    @property
    def copies(self) -> dict[str, str]:
        """File (`mask.png`, `binary/007.png`) → URI of its copy under output_name."""
        return self.details.copies

    def uri(self, output: Output | OutputName) -> str:
        """An output's URI. Raises InvalidRequest if the job has no such output."""
        try:
            return self.details.outputs[output]
        except KeyError:
            made = ", ".join(sorted(self.details.outputs)) or "none"
            raise InvalidRequest(
                f"job {self.job_id} has no output {str(output)!r}, it made: {made}; "
                f"submit with outputs={{…}} to choose"
            ) from None

    @operation
    def read(self, output: Output | OutputName, label: str | int | None = None) -> Flow[bytes]:
        """The bytes of an output, as stored.

        label: of an output that is one file per class, the label or id of the class.
        Raises InvalidRequest if the job has no such output, or no such class.
        """
        return (yield from self._fetch(output, label))

    @operation
    def mask(self) -> Flow[PIL.Image.Image]:
        """The mask: mode P, pixel = class id, the image's own upright size."""
        return (yield from self._image(Output.MASK))

    @operation
    def overlay(self) -> Flow[PIL.Image.Image]:
        """The image with the mask's colours over it, RGB."""
        return (yield from self._image(Output.OVERLAY))

    @operation
    def confidence(self) -> Flow[PIL.Image.Image]:
        """The model's confidence: mode L, 255 times the probability of each pixel's class."""
        return (yield from self._image(Output.CONFIDENCE))

    @operation
    def uncertain(self) -> Flow[PIL.Image.Image]:
        """The uncertain pixels: mode 1, white where the class may differ from float32's."""
        return (yield from self._image(Output.UNCERTAIN))

    @operation
    def rle(self) -> Flow[dict[str, Any]]:
        """A COCO document; `annotations` holds one compressed RLE for each class in the mask.

        `category_id` is the class id plus 1, because tools for COCO read 0 as 'no class'; `class_id` is
        the mask's own. `maskq.coco` joins documents of several jobs.
        """
        document: dict[str, Any] = json.loads((yield from self._fetch(Output.RLE)))
        return document

    @operation
    def binary(self, label: str | int) -> Flow[PIL.Image.Image]:
        """The mask of one class: mode 1. `label`: the class's label or id.

        Raises InvalidRequest if the class is not in this result, or if several classes have the label.
        """
        body = yield from self._fetch(Output.BINARY, label)
        return open_image(body, Output.BINARY, self.size)

    @operation
    def logits(self) -> Flow[np.ndarray[Any, np.dtype[np.float32]]]:
        """Scores before the softmax, float32 (classes, height, width), at the model's own size."""
        return open_scores((yield from self._fetch(Output.LOGITS)))

    @operation
    def save(
        self, folder: str | Path, *, name: str | None = None, overwrite: bool = False
    ) -> Flow[list[Path]]:
        """Write all outputs as files into a folder, which is made if missing. Returns their paths.

        The files are `{name}.mask.png`, `{name}.overlay.jpg` and so on, and of one file per class
        `{name}.binary.012.png`. `name`: default: the image's own without its suffix, `photo` for
        `s3://bucket/photo.jpg`; the job's id if no name is known. Outputs that were written to
        `output_urls` are left out, and so are outputs that only a newer version of maskq knows.

        Raises InvalidRequest if a file exists with other content and `overwrite` is not set, if a file
        cannot be written, or if all outputs were written to `output_urls`. Raises ResultDamaged,
        StoreUnavailable.
        """
        stem = stem_of(self._record) if name is None else checked_stem(name)
        paths: list[Path] = []
        for output, class_id in self._stored_files():
            body = yield from self._fetch(output, class_id)
            refuse_damaged(body, output, self.size)
            path = Path(folder, file_name(stem, output, class_id))
            yield RunBlocking(partial(write_file, path, body, overwrite=overwrite))
            paths.append(path)
        if not paths:
            raise InvalidRequest(
                f"job {self.job_id} has no output to save: its outputs were written to output_urls"
            )
        return paths

    def _stored_files(self) -> Iterator[tuple[Output, int | None]]:
        """Each file in the store: its output and, of one file per class, the class."""
        for output, uri in self.details.outputs.items():
            if isinstance(output, Output) and not is_url(uri):
                is_per_class = FILES[output].is_per_class
                yield from ((output, one) for one in (self.labels if is_per_class else (None,)))

    def _fetch(self, output: Output | OutputName, label: str | int | None = None) -> Flow[bytes]:
        uri, output = self.uri(output), self._known(output)
        is_per_class = FILES[output].is_per_class
        if is_per_class and label is None:
            raise InvalidRequest(
                f"output {output} is one file per class, below {uri}; read one with "
                f"read({output.value!r}, label)"
            )
        if label is not None and not is_per_class:
            raise InvalidRequest(f"output {output} is one file; read it without a label")
        if is_url(uri):
            raise InvalidRequest(
                f"the output was written to the URL in output_urls; read it there: {uri}"
            )
        class_id = None if label is None else self._id_of(label)
        return (yield from self._session.deployment.output(self._record, output, uri, class_id))

    def _known(self, output: str) -> Output:
        """Raises InvalidRequest for an output that only a newer version knows."""
        try:
            return Output(output)
        except ValueError:
            raise InvalidRequest(
                f"output {output!r} of job {self.job_id} is of a newer version of maskq; upgrade this "
                f"client to read it"
            ) from None

    def _image(self, output: Output) -> Flow[PIL.Image.Image]:
        body = yield from self._fetch(output)
        return open_image(body, output, self.size, legend=self._has_legend)

    def _id_of(self, label: str | int) -> int:
        if isinstance(label, int) and label in self.labels:
            return label
        found = [class_id for class_id, known in self.labels.items() if label == known]
        if len(found) == 1:
            return found[0]
        if found:
            raise InvalidRequest(
                f"{len(found)} classes in the result of job {self.job_id} are called {label!r}; choose "
                f"by id: {', '.join(map(str, found))}"
            )
        present = ", ".join(f"{known} ({class_id})" for class_id, known in self.labels.items())
        raise InvalidRequest(
            f"the result of job {self.job_id} has no class {label!r}; its classes: {present or 'none'}"
        )

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of job {self.job_id}: {self.size[0]}x{self.size[1]}>"


class Result(ResultCore, RunsBlocking):
    """The result of a succeeded job. A notebook displays its overlay, or its mask in colours."""

    _driver: BlockingDriver

    def _repr_png_(self) -> bytes | None:
        from maskq.view.notebook import png

        picture = self._picture()
        return None if picture is None else png(picture)

    def _repr_html_(self) -> str:
        from maskq.view.notebook import html

        return html(self.job_id, self.details, self._picture())

    def _picture(self) -> PIL.Image.Image | None:
        """The picture to display; None if no output can be read, because displaying must not fail."""
        with suppress(MaskqError):
            return self.overlay()
        with suppress(MaskqError):
            from maskq.view.notebook import coloured_mask

            return coloured_mask(self.mask(), self.labels)
        return None


class AsyncResult(ResultCore, RunsAsync):
    """The result of a succeeded job; methods that fetch are awaited. A notebook displays its facts."""

    _driver: AsyncDriver

    def _repr_html_(self) -> str:
        from maskq.view.notebook import html

        return html(self.job_id, self.details, None)  # a picture would have to be awaited
