"""Calls about waiting: positions in the queue, the work of each model, shares of tenants, reasons."""

from maskq.ledger.calls.queueing.position import Demand, QueuePlace, demand, place

__all__ = ["Demand", "QueuePlace", "demand", "place"]
