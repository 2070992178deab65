"""The tasks that Celery runs. The work is done in jobs/runner.py and celery_callers.py."""

from __future__ import annotations

from typing import Any

from celery import Task, shared_task

from maskq.errors import SegmentRefused
from maskq.ledger import calls, keys
from maskq_worker.broker import celery_callers


@shared_task(name=keys.TASK_RUN, bind=True, ignore_result=True)
def run(self: Task, model: str) -> None:
    """A ticket: run the next job of this model, if there is one."""
    self.app.job_runner.run(model)


class _Answered(Task):
    """Tells the ledger when Celery has stored the result and sent the messages that follow it."""

    def on_success(self, retval: Any, task_id: str, *_: Any) -> None:
        self._answered(task_id)

    def on_failure(self, exc: BaseException, task_id: str, *_: Any) -> None:
        """Also called if Celery could not send what follows a success; the result says so."""
        self._answered(task_id)

    def _answered(self, task_id: str) -> None:
        self.app.job_runner.persist(calls.answered(task_id))


# throws: celery_callers.py logs the refusal in one line; Celery would add a traceback.
# typing: Celery would check a chain's arguments against the parameters of this function.
@shared_task(
    name=keys.TASK_SEGMENT, bind=True, base=_Answered, throws=(SegmentRefused,), typing=False
)
def segment(self: Task, args: list[Any], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Segment an image for a raw Celery caller. Takes that caller's arguments (envelope.py)."""
    caller = dict(self.request.__dict__)
    return celery_callers.answer(
        self.app.job_runner.persist, self.app.settings, caller, args, kwargs
    )
