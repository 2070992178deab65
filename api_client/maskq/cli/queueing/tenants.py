"""maskq tenants: shares and limits of tenants. These commands need access to Redis."""

from __future__ import annotations

from typing import Annotated

import typer

from maskq.cli.jobs import Json
from maskq.client.admin.tenants import KEEP, Keep
from maskq.client.client import Client
from maskq.contract.queueing.tenants import LARGEST_COUNT, LARGEST_WEIGHT, TenantState
from maskq.errors import InvalidRequest
from maskq.inert import print_json, print_lines

app = typer.Typer(no_args_is_help=True, help="Shares and limits of tenants.")
Name = Annotated[str, typer.Argument(help="the tenant, as jobs name it")]


def register(parent: typer.Typer) -> None:
    parent.add_typer(app, name="tenants")


@app.callback()
def _tenants() -> None:
    """Shares and limits of tenants."""


@app.command("set")
def set_tenant(
    name: Name,
    weight: Annotated[
        int | None,
        typer.Option(min=1, max=LARGEST_WEIGHT, help="share of the starts; default: 1"),
    ] = None,
    max_running: Annotated[
        int | None,
        typer.Option(
            min=0, max=LARGEST_COUNT, help="jobs that run at a time; 0: none; default: no limit"
        ),
    ] = None,
    submit_rate: Annotated[
        int | None,
        typer.Option(min=1, max=LARGEST_COUNT, help="jobs a minute; default: no limit"),
    ] = None,
    max_queued: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=LARGEST_COUNT,
            help="jobs of a model that may wait; 0: no limit; default: MASKQ_MAX_QUEUED_PER_TENANT",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Set a tenant's share and limits; what is not given stays as it is."""
    if all(one is None for one in (weight, max_running, submit_rate, max_queued)):
        raise InvalidRequest(
            "give at least one of --weight, --max-running, --submit-rate, --max-queued"
        )
    with Client.from_env() as client:
        state = client.set_tenant(
            name,
            weight=_given(weight),
            max_running=_given(max_running),
            submit_rate=_given(submit_rate),
            max_queued=_given(max_queued),
        )
    _show(state, as_json)


@app.command()
def unset(name: Name, as_json: Json = False) -> None:
    """Give a tenant the defaults again."""
    with Client.from_env() as client:
        state = client.unset_tenant(name)
    _show(state, as_json)


@app.command()
def show(name: Name, as_json: Json = False) -> None:
    """Show a tenant's share, limits, queued and running jobs."""
    with Client.from_env() as client:
        state = client.tenant(name)
    _show(state, as_json)


@app.command("list")
def list_tenants(as_json: Json = False) -> None:
    """List the tenants with a share or limit of their own."""
    with Client.from_env() as client:
        found = client.tenants()
    if as_json:
        print_json({"tenants": [state.model_dump(mode="json") for state in found]})
        return
    for state in found:
        print_lines(_line(state))


def _given(value: int | None) -> int | Keep:
    return KEEP if value is None else value


def _show(state: TenantState, as_json: bool) -> None:
    if as_json:
        print_json(state.model_dump(mode="json"))
    else:
        print_lines(_line(state))


def _line(state: TenantState) -> str:
    has = state.settings
    queued = "default" if has.max_queued is None else str(has.max_queued or "no limit")
    parts = [
        state.name,
        f"weight {has.weight}",
        f"max running {'no limit' if has.max_running is None else has.max_running}",
        f"submit rate {f'{has.submit_rate}/min' if has.submit_rate else 'no limit'}",
        f"max queued {queued}",
        f"{state.queued} queued",
        f"{state.running} running",
    ]
    return "  ".join(parts)
