"""What `maskq doctor` checks of a worker: GPU, weights, locations of jobs, webhook secrets."""

from maskq.cli.doctor.check import Check
from maskq_worker.doctor.gpu import GpuCheck
from maskq_worker.doctor.locations import LocationsCheck
from maskq_worker.doctor.webhooks import WebhooksCheck
from maskq_worker.doctor.weights import WeightsCheck

__all__ = ["checks"]


def checks() -> list[Check]:
    """The entry point of this package."""
    return [GpuCheck(), WeightsCheck(), LocationsCheck(), WebhooksCheck()]
