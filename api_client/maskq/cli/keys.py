"""maskq keys: API keys of the HTTP API. These commands need access to Redis, not a key."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from maskq.cli.durations import seconds
from maskq.cli.jobs import Json
from maskq.cli.reporting.tables import aligned, moment
from maskq.client.client import Client
from maskq.contract.api_keys import LARGEST_RATE, ApiKey, Scope
from maskq.inert import print_json, print_lines

app = typer.Typer(no_args_is_help=True, help="API keys of the HTTP API.")

_HEAD: Final = ("KEY", "SCOPES", "TENANT", "RATE", "EXPIRES", "NAME")


def register(parent: typer.Typer) -> None:
    parent.add_typer(app, name="keys")


@app.callback()
def _keys() -> None:
    """API keys of the HTTP API."""


@app.command()
def create(
    scope: Annotated[
        list[Scope] | None,
        typer.Option(help="what the key allows; may be repeated; default: submit and read"),
    ] = None,
    name: Annotated[str, typer.Option(help="a name, printed by `list`")] = "",
    tenant: Annotated[
        str | None, typer.Option(help="limit the key to this tenant's jobs; default: all")
    ] = None,
    rate: Annotated[
        int | None,
        typer.Option(min=1, max=LARGEST_RATE, help="HTTP requests a minute; default: no limit"),
    ] = None,
    expires: Annotated[
        str | None, typer.Option(help="time until the key expires: 12h, 30d; default: never")
    ] = None,
    as_json: Json = False,
) -> None:
    """Create a key and print it; only its SHA-256 hash is stored."""
    with Client.from_env() as client:
        made = client.create_api_key(
            scope or [Scope.SUBMIT, Scope.READ],
            name=name,
            tenant=tenant,
            requests_per_minute=rate,
            expires_in=None if expires is None else seconds(expires),
        )
    if as_json:
        print_json(made.key.model_dump(mode="json") | {"key": made.text})
        return
    print_lines(made.text)


@app.command("list")
def list_keys(as_json: Json = False) -> None:
    """List each key's id, scopes, tenant, rate and expiry, not the key itself."""
    with Client.from_env() as client:
        found = client.api_keys()
    if as_json:
        print_json({"keys": [key.model_dump(mode="json") for key in found]})
        return
    print_lines(*aligned(_HEAD, map(_row, found)))


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(help="as `list` shows it")],
) -> None:
    """Revoke a key, immediately and permanently."""
    with Client.from_env() as client:
        client.revoke_api_key(key_id)
    print_lines(f"{key_id} revoked")


def _row(key: ApiKey) -> tuple[str, ...]:
    return (
        key.id,
        ",".join(sorted(key.scopes)),
        f"tenant {key.tenant}" if key.tenant else "all tenants",
        f"{key.requests_per_minute}/min" if key.requests_per_minute else "no rate limit",
        f"expires {moment(key.expires_ms)} UTC" if key.expires_ms else "never expires",
        key.name,
    )
