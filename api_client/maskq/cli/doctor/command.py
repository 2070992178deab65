"""maskq doctor: makes the checks of a role and reports what they found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from importlib.metadata import entry_points
from typing import Annotated, Final

import typer

from maskq.cli.doctor.check import Check, Finding, Level, Role, Target, unknown
from maskq.cli.doctor.roles import role_of_settings, settings_or_defaults
from maskq.cli.jobs import Json
from maskq.inert import one_line, print_json, print_lines

GROUP: Final = "maskq.doctor"  # entry points: functions that return checks
_LAST_LINE: Final = {
    Level.TROUBLE: "in trouble",
    Level.WARNING: "warnings",
    Level.UNKNOWN: "not checked",
}


def register(app: typer.Typer) -> None:
    app.command("doctor")(doctor)


def doctor(
    role: Annotated[
        Role | None,
        typer.Option(help="whose settings and rights to check; default: what the settings allow"),
    ] = None,
    as_json: Json = False,
) -> None:
    """Check settings, Redis, object store, gateway, weights, GPU and workers; says what to do.

    Run it with the environment of the process in question. Exits with 1 if something is in trouble.
    """
    target = Target(role or role_of_settings(), settings_or_defaults())
    found = [
        (check.area, each) for check in _checks(target.role) for each in examined(check, target)
    ]
    levels = Counter(finding.level for _, finding in found)
    if as_json:
        print_json(_document(target.role, found))
    else:
        _report(target.role, found)
        print_lines(_last_line(levels))
    raise typer.Exit(1 if levels[Level.TROUBLE] else 0)


def examined(check: Check, target: Target) -> Iterator[Finding]:
    """What a check finds. One that fails is reported as not made."""
    try:
        yield from check.run(target)
    except Exception as error:  # noqa: BLE001 - the other checks go on
        yield unknown(
            "check", f"ended with {type(error).__name__}: {error}", "report this as a bug"
        )


def _checks(role: Role) -> list[Check]:
    # They import redis-py and boto3, which no other command needs for a gateway's URL.
    from maskq.cli.doctor.deployment import DeploymentCheck
    from maskq.cli.doctor.gateway import GatewayCheck
    from maskq.cli.doctor.redis_server import RedisCheck
    from maskq.cli.doctor.settings_check import SettingsCheck
    from maskq.cli.doctor.store import StoreCheck

    checks: list[Check] = [
        SettingsCheck(), RedisCheck(), StoreCheck(), GatewayCheck(), DeploymentCheck(),
    ]  # fmt: skip
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
        checks += entry.load()()
    return [check for check in checks if role in check.roles]


def _document(role: Role, found: Sequence[tuple[str, Finding]]) -> dict[str, object]:
    return {
        "role": role.value,
        "findings": [
            {
                "area": area,
                "name": one.name,
                "level": one.level.value,
                "found": one.found,
                "do": one.do,
            }
            for area, one in found
        ],
    }


def _report(role: Role, found: Sequence[tuple[str, Finding]]) -> None:
    print_lines(f"as a {role.value}")
    last = ""
    for area, one in found:
        if area != last:
            print_lines(area)
            last = area
        print_lines(f"  {one.level.value:8} {one_line(one.name):18} {one_line(one.found)}")
        if one.do:
            print_lines(f"  {'':8} {'':18} do: {one_line(one.do)}")


def _last_line(levels: Counter[Level]) -> str:
    parts = [f"{levels[level]} {words}" for level, words in _LAST_LINE.items() if levels[level]]
    return ", ".join([f"{levels[Level.OK]} ok", *parts])
