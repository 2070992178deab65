"""Which jobs a process counts as lost while it held them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support import ledger_harness
from support.ledger_harness import LedgerHarness
from support.waiting import stays, until

from maskq_worker.jobs.leases import Leases

harness = ledger_harness.harness
LEASE_S = 0.15


@pytest.fixture
def leases(harness: LedgerHarness) -> Iterator[Leases]:
    """Renews every 0.05 s."""
    renewing = Leases(harness.ledger, LEASE_S)
    renewing.start()
    yield renewing
    renewing.stop()


def test_a_job_that_is_canceled_while_it_is_held_counts_once(
    harness: LedgerHarness, leases: Leases
) -> None:
    job_id, token = harness.claimed_job()
    with leases.hold(job_id, token) as held:
        harness.cancel(job_id)
        until(lambda: held.is_lost)
        stays(lambda: leases.lost_count == 1, for_s=4 * LEASE_S)


def test_a_job_that_its_holder_ends_is_not_lost(harness: LedgerHarness, leases: Leases) -> None:
    """After its end the process still holds it for a moment."""
    job_id, token = harness.claimed_job()
    with leases.hold(job_id, token) as held:
        held.begin_leaving()
        assert harness.succeed(job_id, token)
        stays(lambda: leases.lost_count == 0 and not held.is_lost, for_s=4 * LEASE_S)
