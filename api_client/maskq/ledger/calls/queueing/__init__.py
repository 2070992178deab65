"""Calls about waiting: places in the queue, the work of each model, tenants' shares, why a job waits."""

from maskq.ledger.calls.queueing.places import Demand, QueuePlace, demand, place

__all__ = ["Demand", "QueuePlace", "demand", "place"]
