"""Callers that submit all the time, and what must have become of their jobs."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Mapping

import pytest
from chaos.conftest import Fleet

from maskq import Client, JobStatus, MaskqError
from maskq_standalone.stack import Stack


def speak_to(
    monkeypatch: pytest.MonkeyPatch, stack: Stack, instead: Mapping[str, str] | None = None
) -> None:
    """Have clients of this test use the stack; `instead`: of some of its variables."""
    for name, value in (stack.environment | dict(instead or {})).items():
        monkeypatch.setenv(name, value)


class Submitter:
    """Submits until told to stop, as callers do: what was refused is sent again under its key."""

    def __init__(self, client: Client, place: str, webhook: str | None = None) -> None:
        self.ids: list[str] = []
        self.refused = 0
        self._client, self._place, self._webhook = client, place, webhook
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Submitter:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._enough.set()
        self._thread.join()

    def _run(self) -> None:
        number = 0
        while not self._enough.is_set():
            try:
                job = self._client.submit(
                    self._place, idempotency_key=str(number), webhook=self._webhook
                )
            except MaskqError:
                self.refused += 1
                time.sleep(0.2)
            else:
                self.ids.append(job.id)
                number += 1
                time.sleep(0.02)


def all_ended_well(fleet: Fleet, ids: list[str]) -> None:
    fleet.wait_until(lambda: all(one.ended for one in fleet.records()), 90)
    records = {one.id: one for one in fleet.records()}
    assert set(ids) <= set(records)
    assert Counter(one.status for one in records.values()) == {JobStatus.SUCCEEDED: len(records)}
    fleet.one_terminal_event_each(list(records))
