"""Settings: unknown names, values that are not valid, values that contradict each other."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator
from importlib.metadata import entry_points
from typing import Final

from maskq import environment
from maskq.cli.doctor.check import Check, Finding, Role, Target, ok, trouble, unknown, warning
from maskq.environment import PREFIX
from maskq.errors import InvalidRequest
from maskq.settings import Settings, known

_GROUP: Final = "maskq.settings"
# The entry point of the settings that a role reads beside those of every process.
_OF_ROLE: Final = {
    Role.CLIENT: "http",
    Role.WORKER: "worker",
    Role.WEBHOOKS: "webhooks",
    Role.GATEWAY: "gateway",
}


class SettingsCheck(Check):
    area = "settings"
    roles = frozenset(Role)

    def run(self, target: Target) -> Iterator[Finding]:
        unknown_names = [name for name in _given() if not environment.setting_of(name, known())]
        for name in unknown_names:
            yield trouble(
                "names",
                f"{name} is not a setting of maskq{_near(name)}",
                f"unset {name}, or correct it",
            )
        if not unknown_names:
            yield ok("names", f"{len(_given())} MASKQ_ variables, all known")
            yield from _values(target.role)
        else:
            yield unknown("values", "not read while a name is unknown")
        yield from _contradictions(target)


def _given() -> list[str]:
    return sorted(name for name in os.environ if name.startswith(PREFIX))


def _near(name: str) -> str:
    near = difflib.get_close_matches(name.removeprefix(PREFIX).lower(), known(), n=1)
    return f"; did you mean {PREFIX}{near[0].upper()}?" if near else ""


def _values(role: Role) -> Iterator[Finding]:
    classes: list[type[Settings]] = [Settings]
    for entry in entry_points(group=_GROUP, name=_OF_ROLE.get(role, "")):
        classes.append(entry.load())
    for each in classes:
        try:
            each.load()
        except InvalidRequest as error:
            yield trouble("values", str(error), "correct the setting (docs/reference/settings.md)")
            return
    yield ok("values", f"valid for a {role.value}")


def _contradictions(target: Target) -> Iterator[Finding]:
    settings = target.settings
    if 0 < settings.max_queued < settings.max_queued_per_tenant:
        yield warning(
            "limits",
            f"MASKQ_MAX_QUEUED_PER_TENANT ({settings.max_queued_per_tenant}) is above MASKQ_MAX_QUEUED "
            f"({settings.max_queued}), so it never counts",
            "lower the limit of a tenant, or raise MASKQ_MAX_QUEUED",
        )
    if 0 < settings.output_retention_s < settings.retention_s:
        yield warning(
            "retention",
            f"outputs are removed after {settings.output_retention_s:g} s, their records after "
            f"{settings.retention_s:g} s: records meanwhile name objects that are gone",
            "set MASKQ_OUTPUT_RETENTION_S to MASKQ_RETENTION_S or more, or to 0",
        )
    default, own = settings.default_model, settings.model_name
    if target.role is Role.WORKER and default and own and default != own:
        yield warning(
            "model",
            f"this worker serves {own}, but MASKQ_DEFAULT_MODEL is {default}: requests without a model "
            f"do not reach it",
            "nothing, if another worker serves that model",
        )
