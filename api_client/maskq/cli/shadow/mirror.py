"""Follows the events of succeeded jobs, and submits a share of the jobs again."""

from __future__ import annotations

import logging
from typing import Final

from maskq.cli.shadow.target import ShadowTarget
from maskq.client.client import Client
from maskq.contract import JobRecord, Output
from maskq.errors import EventsLost, InvalidRequest, JobNotFound, QueueFull, UnknownModel

logger = logging.getLogger(__name__)

GROUP: Final = "maskq-shadow"  # of readers of events: several mirrors share them
SHADOW_OF: Final = "shadow_of"  # in the metadata of a second run: the id of the job


class Mirror:
    """Submits jobs of `source` to `shadow`."""

    def __init__(self, source: Client, shadow: Client, target: ShadowTarget) -> None:
        self._source = source
        self._shadow = shadow
        self._target = target

    def follow(self, *, since: str | None = None, idle: float | None = None) -> int:
        """Submit until no event came for `idle` seconds; returns how many. Default: for ever.

        since: where to begin the first time; default: new events only.
        """
        submitted = 0
        while True:
            try:
                events = self._source.events(since, types=["job.succeeded"], group=GROUP, idle=idle)
                for event in events:
                    if self._target.chooses(event.subject):
                        submitted += self._submit_again(event.subject)
            except EventsLost as error:
                logger.warning("%s; these jobs are not run again", error)
                continue
            return submitted

    def _submit_again(self, job_id: str) -> bool:
        try:
            record = self._source.get(job_id).refresh()
            if not _can_be_repeated(record):
                return False
            request = record.request
            self._shadow.submit(
                request.image_uri,
                idempotency_key=job_id,
                model=self._target.model,
                outputs=[Output.MASK],
                mode=request.mode,
                classes=request.classes,
                image_version_id=request.image_version_id,
                image_etag=request.image_etag,
                tenant=record.tenant,
                priority="low",
                metadata={SHADOW_OF: job_id},
            )
        except (QueueFull, JobNotFound, InvalidRequest, UnknownModel) as error:
            logger.warning("job %s is not run again: %s", job_id, error)
            return False
        return True


def _can_be_repeated(record: JobRecord) -> bool:
    """Whether it has a mask in the store, and an image whose URL the record shows in full."""
    mask = record.result.outputs.get(Output.MASK, "") if record.result else ""
    return mask.startswith("s3://") and not record.request.incomplete
