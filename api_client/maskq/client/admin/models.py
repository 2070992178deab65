"""Listing models, choosing the default model, retiring models."""

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
        """All models that jobs can request, by name, with their live workers and queued jobs."""
        return (yield from self.session.deployment.models()).each

    @operation
    def default_model(self) -> Flow[DefaultModel]:
        """The model for this client's requests without `model`, and where the choice comes from."""
        return (yield from self.session.deployment.models()).default

    @operation
    def set_default_model(self, name: str | None) -> Flow[None]:
        """Set the deployment's default model, for requests without `model`; None: remove it.

        It overrides MASKQ_DEFAULT_MODEL. Raises UnknownModel.
        """
        if name == "":
            raise InvalidRequest("the name of the default model is empty; None clears the default")
        known: tuple[str, ...] | None = yield models.set_default(name)
        if known is not None:
            raise UnknownModel(models.unknown(name, known))

    @operation
    def retire_model(self, name: str, *, force: bool = False) -> Flow[int]:
        """Remove a model that no worker serves; later requests for it raise UnknownModel.

        Raises InvalidRequest while the model has live workers, queued or running jobs, or is the stored
        default. `force`: remove it anyway. Its queued jobs are canceled (their number is returned),
        running jobs continue, and the stored default is cleared; a worker that still serves the model
        registers it again within half a minute. Raises UnknownModel.
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
        f"jobs end (or change the default), or use force, which cancels its queued jobs"
    )


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number > 1)}" if number else ""
