"""`maskq gateway` and `maskq trigger`. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from maskq.extras import require
from maskq.inert import print_json, print_lines
from maskq.process import starting

RulesFile = Annotated[
    Path | None, typer.Option("--rules", help="instead of MASKQ_TRIGGER_RULES, a TOML file")
]


def register(app: typer.Typer) -> None:
    """Add this package's commands. The client's command line calls it if the package is installed."""
    app.command()(gateway)
    app.add_typer(trigger, name="trigger")


def gateway(
    host: Annotated[str, typer.Option(help="the address to listen at")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free")] = 8090,
    rules: RulesFile = None,
) -> None:
    """Serve the HTTP API; with rules, also take object stores' notifications, which start jobs."""
    require("gateway", "maskq gateway")
    from maskq_gateway.server import serve
    from maskq_gateway.settings import GatewaySettings

    with starting():
        settings = GatewaySettings.load()
        if rules or settings.trigger_rules:
            settings.rules(rules)
    serve(settings, rules, host=host, port=port)


trigger = typer.Typer(no_args_is_help=True, help="Uploads that start jobs.")


@trigger.callback()
def _trigger() -> None:
    """Uploads that start jobs."""


@trigger.command()
def sqs(
    queue_url: Annotated[
        str | None, typer.Option(help="instead of MASKQ_TRIGGER_QUEUE_URL")
    ] = None,
    rules: RulesFile = None,
) -> None:
    """Read notifications from an SQS queue; each upload that matches a rule starts a job."""
    from maskq_gateway.settings import GatewaySettings
    from maskq_gateway.sqs.process import serve

    chosen = {"trigger_queue_url": queue_url} if queue_url else {}
    with starting():
        settings = GatewaySettings.load(**chosen)
        settings.rules(rules)
    serve(settings, rules)


@trigger.command()
def check(
    file: Annotated[Path, typer.Argument(help="a TOML file with [[rule]] tables")],
    as_json: Annotated[bool, typer.Option("--json", help="one JSON document on stdout")] = False,
) -> None:
    """Print what the rules of a file do, or the first mistake in them."""
    from maskq_gateway.settings import GatewaySettings

    described = [rule.public() for rule in GatewaySettings.load().rules(file).each]
    if as_json:
        print_json({"rules": described})
        return
    for rule in described:
        print_lines(f"{rule['name']}: s3://{rule['bucket']}/{rule['prefix']}…")
        for name in sorted(rule.keys() - {"name", "bucket", "prefix"}):
            print_lines(f"    {name} = {json.dumps(rule[name], ensure_ascii=False)}")
