"""The calls of jobs from their submission to their end, without images."""

from __future__ import annotations

from collections.abc import Sequence

from bench.scaling.deployment import claim, in_chunks, result, submit
from maskq.ledger import Ledger, calls


def do_jobs(ledger: Ledger, model: str, tenants: Sequence[str | None]) -> None:
    """Submit a job of each tenant and work off the queue, as workers do under load."""
    in_chunks(ledger, [submit(model, tenant) for tenant in tenants])
    held = ledger.run(claim(model, with_ticket=True))
    while held.job_id:
        ended = calls.succeed(held.job_id, held.token, result(held.job_id, model))
        _, held = ledger.run_both(ended, claim(model, with_ticket=True))
