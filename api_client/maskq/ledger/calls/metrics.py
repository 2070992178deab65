"""The call that reads what the metrics of a deployment need."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeVar

from maskq.contract import FailureCode
from maskq.contract.options import Priority
from maskq.contract.statuses import TERMINAL
from maskq.contract.webhooks import DeliveryState
from maskq.ledger.calls.base import Call, scripted
from maskq.ledger.calls.queueing.position import Demand, parse_demand
from maskq.ledger.records import pairs

K = TypeVar("K")

OTHER: Final = "other"
"""The label of what has none of its own: a retired model, a code of a newer version."""

_CODES: Final = frozenset(code.value for code in FailureCode)
_UNMEASURED_JOB_S: Final = 1.0  # of a model whose rate is not known

OUTCOMES: Final[Mapping[str, str]] = {
    DeliveryState.DELIVERED: "delivered",
    DeliveryState.PENDING: "retried",
    DeliveryState.FAILED: "failed",
}
"""How an attempt to deliver a webhook ended, by the state that it left."""


class Ended(NamedTuple):
    """How jobs ended."""

    model: str
    status: str
    code: str  # '' if they succeeded


@dataclass(frozen=True, slots=True)
class Depth:
    """A model's jobs of one priority that may run now."""

    priority: Priority
    jobs: int
    oldest_s: float  # since the oldest was submitted; 0: there is none


@dataclass(frozen=True, slots=True)
class ModelLoad:
    """What a model has to do."""

    demand: Demand
    depths: tuple[Depth, ...]

    @property
    def demand_s(self) -> float:
        """Seconds that one worker needs for the running jobs and those that may start."""
        if self.demand.seconds is None:
            return (self.demand.startable + self.demand.running) * _UNMEASURED_JOB_S
        return self.demand.seconds

    @property
    def offered_load(self) -> float:
        """Workers that the arriving jobs keep busy."""
        if self.demand.offered_load is None:
            return self.demand.arrivals_per_s * _UNMEASURED_JOB_S
        return self.demand.offered_load


@dataclass(frozen=True, slots=True)
class GroupLag:
    """A group of event readers."""

    group: str
    unread: int | None  # None: Redis cannot tell, because the group's position was set
    unconfirmed: int  # read and not confirmed


@dataclass(frozen=True, slots=True)
class DeploymentMetrics:
    """The state of a deployment, and what has happened in it since its ledger was created."""

    sweeper_age_s: float | None  # None: there was no sweep yet
    running: int
    ended: Mapping[Ended, int]
    retries: Mapping[str, int]  # by code
    webhooks: Mapping[str, int]  # attempts by outcome
    tickets_resent: int
    leases_lost: int
    entries: Mapping[str, int]  # of the ledger, by kind
    webhooks_due: int
    webhooks_overdue_s: float  # since the first of those was due; 0: there is none
    groups: tuple[GroupLag, ...]
    models: tuple[ModelLoad, ...]


def deployment_metrics() -> Call[DeploymentMetrics]:
    """What the metrics of the deployment need, in one call, however many jobs wait."""
    return scripted("metrics", _parse)


def _parse(answer: Sequence[Any]) -> DeploymentMetrics:
    age_ms, running, counters, entries, due, overdue_ms, groups, *models = answer
    counts = {name: int(count) for name, count in pairs(counters).items()}
    return DeploymentMetrics(
        sweeper_age_s=int(age_ms) / 1000 if age_ms else None,
        running=int(running),
        ended=_labelled(counts, "jobs", _ended),
        retries=_labelled(counts, "retries", lambda code: _known(code, _CODES)),
        webhooks=_labelled(counts, "webhooks", lambda state: OUTCOMES.get(state, OTHER)),
        tickets_resent=counts.get("tickets_resent", 0),
        leases_lost=counts.get("leases_lost", 0),
        entries={kind: int(count) for kind, count in pairs(entries).items()},
        webhooks_due=int(due),
        webhooks_overdue_s=int(overdue_ms or 0) / 1000,
        groups=tuple(
            GroupLag(group, None if unread == "" else int(unread), int(unconfirmed))
            for group, unread, unconfirmed in _rows(groups)
        ),
        models=tuple(map(_model, models)),
    )


def _labelled(
    counts: Mapping[str, int], name: str, labels_of: Callable[[str], K]
) -> Mapping[K, int]:
    """The counters of one name, by their labels."""
    found: Counter[K] = Counter()
    for field, count in counts.items():
        first, _, labels = field.partition(" ")
        if first == name:
            found[labels_of(labels)] += count
    return found


def _ended(labels: str) -> Ended:
    status, code, model = labels.split(" ", 2)
    known = _known(code, _CODES) if code else ""
    return Ended(model or OTHER, _known(status, TERMINAL), known)


def _known(value: str, known: Collection[str]) -> str:
    return value if value in known else OTHER


def _model(row: Sequence[Any]) -> ModelLoad:
    demand, depths = row
    each = (
        Depth(Priority(level), int(jobs), int(age_ms) / 1000)
        for level, jobs, age_ms in _rows(depths)
    )
    return ModelLoad(parse_demand(demand), tuple(each))


def _rows(flat: Sequence[Any]) -> list[Sequence[Any]]:
    return [flat[i : i + 3] for i in range(0, len(flat), 3)]
