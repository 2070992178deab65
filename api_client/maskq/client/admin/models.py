"""What a client can ask and say about models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from maskq.client.operations.flow import Flow, operation
from maskq.contract.models import DefaultModel, ServedModel
from maskq.errors import InvalidRequest, UnknownModel
from maskq.ledger.calls import models

if TYPE_CHECKING:
    from maskq.client.session import Session


class ModelOperations:
    """Mixed into both clients."""

    session: Session

    @operation
    def models(self) -> Flow[Sequence[ServedModel]]:
        """Every model that jobs can ask for, by name: its live workers, its queued jobs."""
        known: models.Known = yield models.known(self.session.limits)
        return known.each

    @operation
    def default_model(self) -> Flow[DefaultModel]:
        """The model of this client's requests that name none, and where that choice comes from."""
        known: models.Known = yield models.known(self.session.limits)
        return known.default

    @operation
    def set_default_model(self, name: str | None) -> Flow[None]:
        """Choose the model of every request that names none; None: choose none.

        It is stored for the whole deployment, and goes before MASKQ_DEFAULT_MODEL. Raises UnknownModel.
        """
        if name == "":
            raise InvalidRequest("the name of the default model is empty; None clears the default")
        known: tuple[str, ...] | None = yield models.set_default(name)
        if known is not None:
            raise UnknownModel(models.unknown(name, known))

    @operation
    def retire_model(self, name: str, *, force: bool = False) -> Flow[int]:
        """Forget a model that nobody serves any more: requests that name it get UnknownModel.

        Raises InvalidRequest while it has live workers, queued or running jobs, or is the stored
        default. With `force` its queued jobs are canceled (their number is returned), running ones go
        on, the default is dropped, and a worker that still serves it makes it known again within half
        a minute. Raises UnknownModel.
        """
        answer: models.Retired = yield models.retire(name, force=force)
        if answer.known is not None:
            raise UnknownModel(models.unknown(name, answer.known))
        if not answer.retired:
            raise InvalidRequest(_in_use(name, answer))
        canceled, offset = 0, 0 if answer.queued else None
        while offset is not None:
            some, offset = yield models.cancel_queued(name, offset=offset)
            canceled += some
        return canceled


def _in_use(name: str, found: models.Retired) -> str:
    reasons = [
        _counted(found.workers, "live worker"),
        _counted(found.queued, "queued job"),
        _counted(found.running, "running job"),
        "it is the default" if found.is_default else "",
    ]
    return (
        f"model {name!r} is in use: {', '.join(filter(None, reasons))}; stop its workers and let its "
        f"jobs end (or change the default), or force it, which cancels its queued jobs"
    )


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number > 1)}" if number else ""
