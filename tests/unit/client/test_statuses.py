"""What derives from contract/statuses.py: a new terminal state is declared there alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from maskq.contract import JobFailure, JobStatus, statuses
from maskq.contract.failures import FailureCode
from maskq.contract.statuses import ENDED, RETRYABLE, STATES, TERMINAL, either
from maskq.ledger import calls

ERROR = JobFailure(code=FailureCode.INTERNAL, message="broken")
MEMBER = 'EXPIRED = "expired"'
ENTRY = "JobStatus.EXPIRED: State("
# Load the changed file as maskq.contract.statuses, then ask every part that derives from it.
PROBE = """
import importlib.util, json, sys
spec = importlib.util.spec_from_file_location("maskq.contract.statuses", sys.argv[1])
changed = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = changed
spec.loader.exec_module(changed)

from maskq.contract import TERMINAL, JobFailure, JobRecord, events
from maskq.contract.asyncapi import document
from maskq.contract.options import JobOptions
from maskq.contract.webhooks import END_EVENTS, WebhookEvent
from maskq.ledger import calls
from maskq.ledger.prelude import words
from tools.reference.contract import events as page

status = changed.JobStatus("rejected")
kind = events.job_event(status)
error = JobFailure(code="internal", message="broken")
message = document()["components"]["messages"][kind]
counts = events.BatchEventData.model_validate(
    {"batch_id": "b", "total": 1, "rejected": 1} | dict.fromkeys(set(changed.ENDED) - {status}, 0)
)
print(json.dumps({
    "terminal": status in TERMINAL,
    "retryable": status in changed.RETRYABLE,
    "type": kind in events.EVENT_DATA,
    "webhook": WebhookEvent("job.rejected") in END_EVENTS,
    "default": "job.rejected" in JobOptions.model_fields["webhook_events"].default,
    "count": counts.rejected,
    "required": events.BatchEventData.model_fields["rejected"].is_required(),
    "summary": message["summary"],
    "example": message["examples"][0]["payload"]["data"]["error"]["code"],
    "batch example": document()["components"]["messages"][events.BATCH_COMPLETED]["examples"][0]
        ["payload"]["data"]["rejected"],
    "lua name": words()["REJECTED"],
    "lua list": "'rejected'" in words()["TERMINAL"],
    "lua event": kind in words()["JOB_EVENTS"],
    "call": "rejected" in calls.fail("1", "t", status, error).args,
    "page": "No worker may run it." in page(),
}))
"""


@pytest.mark.slow
def test_a_terminal_state_needs_one_file_when_it_is_added(tmp_path: Path) -> None:
    source = Path(statuses.__file__).read_text(encoding="utf-8")
    assert MEMBER in source
    assert ENTRY in source
    changed = tmp_path / "statuses.py"
    member = f'REJECTED = "rejected"\n    """No worker may run it."""\n    {MEMBER}'
    entry = f'JobStatus.REJECTED: State("A job was rejected.", count="Rejected jobs."), {ENTRY}'
    changed.write_text(source.replace(MEMBER, member).replace(ENTRY, entry), encoding="utf-8")

    found = probe(changed)

    assert found == {
        **dict.fromkeys(found, True),
        "count": 1,
        "summary": "A job was rejected.",
        "example": "invalid_image",
        "batch example": 0,
        "lua name": "'rejected'",
    }


def probe(changed: Path) -> dict[str, Any]:
    command = [sys.executable, "-c", PROBE, str(changed)]
    root = Path(__file__).parents[3]
    answer = subprocess.run(command, capture_output=True, text=True, cwd=root, timeout=60)
    assert answer.returncode == 0, answer.stderr
    found: dict[str, Any] = json.loads(answer.stdout)
    return found


def test_every_status_has_an_entry() -> None:
    assert list(STATES) == list(JobStatus)


def test_the_terminal_states_are_split_by_result() -> None:
    assert ENDED == (
        JobStatus.SUCCEEDED,
        JobStatus.FAILED,
        JobStatus.CANCELED,
        JobStatus.EXPIRED,
    )
    assert frozenset(ENDED) == TERMINAL
    assert ENDED[1:] == RETRYABLE
    assert either(RETRYABLE) == "failed, canceled or expired"
    assert either(RETRYABLE[:1]) == "failed"


@pytest.mark.parametrize("status", [JobStatus.QUEUED, JobStatus.RUNNING, JobStatus.SUCCEEDED])
def test_fail_refuses_a_state_that_has_no_error(status: JobStatus) -> None:
    with pytest.raises(ValueError, match=f"as {status}"):
        calls.fail("1", "t", status, ERROR)
