"""Reading the files of a result: from the store, through the client, or from a folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from maskq.contract import FailureCode, Output
from maskq.contract.jobs import Manifest
from maskq.contract.locations import S3Uri, is_url
from maskq.contract.outputs import FILES
from maskq.contract.storage_layout import class_file, is_output
from maskq.errors import InvalidRequest, StoreUnavailable

if TYPE_CHECKING:
    from maskq.client.direct.objects import Objects
    from maskq.client.results.result import Result


class NotReadable(Exception):
    """A file of a result cannot be read.

    is_elsewhere: it was written to a URL of the caller's, so that it is not known whether it is there.
    """

    def __init__(self, place: str, reason: str, *, is_elsewhere: bool = False) -> None:
        super().__init__(reason)
        self.place = place
        self.reason = reason
        self.is_elsewhere = is_elsewhere


class ResultFiles(Protocol):
    """Where the outputs of a result are read."""

    def place(self, output: Output) -> str:
        """Where the output is, for messages. Raises NotReadable."""

    def read(self, output: Output, class_id: int) -> bytes:
        """A file. class_id: of an output that is one file per class. Raises NotReadable."""


class JobFiles:
    """The outputs of a job, read by the client's operations on either transport."""

    def __init__(self, result: Result) -> None:
        self._result = result

    def place(self, output: Output) -> str:
        return _readable(self._result.uri(output))

    def read(self, output: Output, class_id: int) -> bytes:
        label = class_id if FILES[output].is_per_class else None
        return _present(self.place(output), lambda: self._result.read(output, label))


class StoredFiles:
    """The objects that a result.json names. They are read only where workers write outputs."""

    def __init__(self, manifest: Manifest, objects: Callable[[], Objects], folder: str) -> None:
        """objects: connects. folder: begins every place; '' if the folder of result.json is unknown."""
        self._manifest = manifest
        self._objects = objects
        self._folder = folder

    def place(self, output: Output) -> str:
        return _readable(self._manifest.outputs[output])

    def read(self, output: Output, class_id: int) -> bytes:
        place = S3Uri.parse(self.place(output))
        if FILES[output].is_per_class:
            place = class_file(place, output, class_id)
        if not is_output(place.key) or not str(place).startswith(self._folder):
            raise NotReadable(str(place), "it is outside the job's folder, and is not read")
        return _present(str(place), lambda: self._objects().get(place))


class LocalFiles:
    """The files beside a result.json; for an output that is not there, its object."""

    def __init__(self, folder: Path, stored: StoredFiles) -> None:
        self._folder = folder
        self._stored = stored

    def place(self, output: Output) -> str:
        path = self._folder / FILES[output].place
        return str(path) if path.exists() else self._stored.place(output)

    def read(self, output: Output, class_id: int) -> bytes:
        if not (self._folder / FILES[output].place).exists():
            return self._stored.read(output, class_id)
        path = self._folder / FILES[output].of_class(class_id)
        try:
            return path.read_bytes()
        except OSError as error:
            raise NotReadable(str(path), f"it cannot be read: {error.strerror}") from None


def _readable(uri: str) -> str:
    if is_url(uri):
        raise NotReadable(uri, "it was written to a URL of the caller's", is_elsewhere=True)
    return uri


def _present(place: str, read: Callable[[], bytes]) -> bytes:
    """The bytes. Raises NotReadable if the object does not exist, and StoreUnavailable."""
    try:
        return read()
    except InvalidRequest as error:
        raise NotReadable(place, str(error)) from None
    except StoreUnavailable as error:
        if error.code is not FailureCode.NOT_FOUND:
            raise
        raise NotReadable(place, "the object does not exist") from None
