"""The manifest of a run: a file of JSON lines, to which the outcome of each image is appended.

    {"maskq_manifest": 1, "run_id": …, "begun": …, "sources": […], "options": {…}}
    {"image": …, "source": …, "job_id": …}                                             accepted
    {"image": …, "source": …, "job_id": …, "status": "succeeded", "outputs": {…}, …}   ended
    {"image": …, "source": …, "job_id": …, "status": "failed", "code": …, "message": …}
    {"image": …, "status": "refused", "code": …, "message": …}                         no job

`image` identifies the image within the run; `source` is what the job's record names.

The last line of an image counts. Only failures have a "code".
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from maskq.contract import FailureCode, JobRecord
from maskq.contract.ids import new_id
from maskq.contract.locations import redact
from maskq.errors import InvalidRequest, MaskqError

_FORMAT = 1
_FLUSH_LINES = 1000


def default_path(sources: Sequence[str]) -> Path:
    """A file in the current folder, named after the first source; for stdin, after the time."""
    first = sources[0]
    if first == "-":
        name = f"{datetime.now(UTC):%Y%m%d-%H%M%S}"
    elif "://" in first:
        name = redact(first.partition("://")[2])
    else:
        name = Path(first).resolve().name
    words = re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-.")[:100]
    more = f"-and-{len(sources) - 1}-more" if len(sources) > 1 else ""
    return Path(f"maskq-{words}{more}.jsonl")


class Manifest:
    """The state of a run; takes a few hundred bytes an image. Use it in a `with` block.

    jobs: image → its latest job. open: job → image, of those not known to have ended. failures: image →
    code, of those refused or ended without a result.
    """

    def __init__(
        self, path: Path, sources: Sequence[str], options: Mapping[str, Any], *, named: bool
    ) -> None:
        """Start a manifest, or resume an existing one.

        `named`: the caller chose the path; another one belongs to its sources. Raises InvalidRequest
        for a manifest of other options, a file that is none, and one that another process writes.
        """
        self.path = path
        self.run_id = new_id()
        self.jobs: dict[str, str] = {}
        self.open: dict[str, str] = {}
        self.failures: dict[str, str] = {}
        self._sources = list(sources)
        self._options = dict(options)
        self._lines: list[str] = []
        try:
            self._file = path.open("ab+")
        except OSError as error:
            raise InvalidRequest(f"cannot write {path}: {error.strerror or error}") from error
        try:
            self._lock()
            self._read(named)
        except BaseException:
            self._file.close()
            raise

    @property
    def begun(self) -> bool:
        """Whether the manifest has a first line."""
        return self._file.tell() > 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.flush()
            if not self.begun:
                self.path.unlink(missing_ok=True)
        finally:
            self._file.close()

    # --- reading ------------------------------------------------------------------------------

    def is_settled(self, image: str, retry_failed: bool) -> bool:
        """Whether the image has a job and must not be submitted again."""
        return image in self.jobs and not (retry_failed and self.failed_job(image))

    def failed_job(self, image: str) -> str:
        """The failed or expired job of an image; '' if it has none."""
        code = self.failures.get(image, FailureCode.CANCELED)  # canceled on purpose: not retried
        return "" if code == FailureCode.CANCELED else self.jobs.get(image, "")

    @property
    def succeeded(self) -> int:
        """Jobs known to have ended with a result."""
        return len(self.jobs) - len(self.open) - sum(image in self.jobs for image in self.failures)

    def codes(self) -> dict[str, int]:
        """Failure code → number of images, the most frequent first."""
        return dict(Counter(self.failures.values()).most_common())

    # --- writing --------------------------------------------------------------------------------

    def begin(self) -> None:
        """Write the run's id, before the first job of the run is submitted."""
        if self.begun:
            return
        head = {
            "maskq_manifest": _FORMAT,
            "run_id": self.run_id,
            "begun": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
            "sources": self._sources,
            "options": self._options,
        }
        self._write(_line(head))

    def accepted(self, image: str, job_id: str, source: str | None = None) -> bool:
        """The image has a job. False: it already had this one. source: default: the image."""
        if self.jobs.get(image) == job_id:
            return False
        self._add({"image": image, "source": source or image, "job_id": job_id})
        return True

    def refused(self, image: str, error: MaskqError) -> None:
        """The image got no job."""
        self._add(
            {"image": image, "status": "refused", "code": error.code.value, "message": str(error)}
        )

    def ended(self, job_id: str, record: JobRecord | None) -> None:
        """The job ended. None: its record no longer exists."""
        if image := self.open.get(job_id):
            source = record.source if record and record.source else image
            self._add({"image": image, "source": source, "job_id": job_id, **_end_of(record)})

    def flush(self) -> None:
        """Write the new lines to the file. Raises MaskqError, for example if the disk is full."""
        lines, self._lines = "".join(self._lines), []
        if lines:
            self.begin()
            self._write(lines)

    # --- the file -----------------------------------------------------------------------------------

    def _write(self, text: str) -> None:
        try:
            self._file.write(text.encode("ascii"))
            self._file.flush()
        except OSError as error:
            raise MaskqError(f"cannot write {self.path}: {error.strerror or error}") from error

    def _add(self, entry: dict[str, Any]) -> None:
        self._lines.append(_line(entry))
        self._apply(entry)
        if len(self._lines) >= _FLUSH_LINES:
            self.flush()

    def _apply(self, entry: Mapping[str, Any]) -> None:
        """Note an entry. Raises KeyError or TypeError if a manifest cannot have it."""
        image, job_id, code = entry["image"], entry.get("job_id"), entry.get("code")
        if not isinstance(image, str) or not all(
            value is None or isinstance(value, str) for value in (job_id, code)
        ):
            raise TypeError
        self.failures.pop(image, None)
        if code:
            self.failures[image] = sys.intern(code)
        if job_id:
            self.jobs[image] = job_id
            self.open.pop(job_id, None)
            if "status" not in entry:
                self.open[job_id] = image

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InvalidRequest(f"another process already writes {self.path}") from None

    def _read(self, named: bool) -> None:
        self._file.seek(0)
        end = 0
        for number, line in enumerate(self._file):
            if not line.endswith(b"\n") and (number or line.startswith(b'{"maskq_manifest"')):
                break  # incomplete: the process was killed while it wrote
            try:
                entry = json.loads(line)
                if number:
                    self._apply(entry)
                else:
                    self._go_on(entry, named)
            except InvalidRequest:
                raise
            except (ValueError, KeyError, TypeError, AttributeError):
                raise InvalidRequest(
                    f"line {number + 1} of {self.path} is not a line of a manifest; name another "
                    f"file with --manifest"
                ) from None
            end += len(line)
        os.truncate(self.path, end)
        self._file.seek(0, os.SEEK_END)

    def _go_on(self, head: Mapping[str, Any], named: bool) -> None:
        if head["maskq_manifest"] != _FORMAT:
            raise InvalidRequest(f"{self.path} was written by another version of maskq")
        wanted, found = self._options, head["options"]
        if other := [n for n in sorted(wanted | found) if wanted.get(n) != found.get(n)]:
            had = ", ".join(
                f"{n}={json.dumps(found[n])}" if n in found else f"no {n}" for n in other
            )
            raise InvalidRequest(
                f"{self.path} was started with other options ({had}); use these, or name another "
                f"file with --manifest"
            )
        if not named and head["sources"] != self._sources:
            raise InvalidRequest(
                f"{self.path} was started for {' '.join(head['sources'])}; name another file with "
                f"--manifest"
            )
        self.run_id = head["run_id"]


def _line(entry: Mapping[str, Any]) -> str:
    return json.dumps(entry) + "\n"


def _end_of(record: JobRecord | None) -> dict[str, Any]:
    if record is None:
        return {
            "status": "gone",
            "code": FailureCode.NOT_FOUND.value,
            "message": "this job no longer has a record: it was deleted, or its retention has passed",
        }
    end: dict[str, Any] = {"status": record.status.value}
    if result := record.result:
        places = {str(output): place for output, place in result.outputs.items()}
        return end | {"width": result.width, "height": result.height, "outputs": places}
    if record.error:
        return end | {"code": record.error.code.value, "message": record.error.message}
    return end | {"code": record.status.value, "message": f"the job was {record.status.value}"}
