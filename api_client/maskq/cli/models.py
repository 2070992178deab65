"""maskq models: list models, choose the default model, retire a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from maskq.cli.jobs import Json
from maskq.client.client import Client
from maskq.contract.models import DefaultModel, ModelChoice, ServedModel
from maskq.errors import InvalidRequest
from maskq.inert import print_json, print_lines, printable

app = typer.Typer(help="List the models that jobs can request, choose the default, retire a model.")

_WHO = {
    ModelChoice.STORED: "`maskq models default`",
    ModelChoice.SETTING: "MASKQ_DEFAULT_MODEL",
    ModelChoice.CALLER: "MASKQ_MODEL",
    ModelChoice.ONLY: "the only one",
    ModelChoice.NOBODY: "several models, or none",
}


def register(parent: typer.Typer) -> None:
    parent.add_typer(app, name="models")


@app.callback(invoke_without_command=True)
def models(context: typer.Context, as_json: Json = False) -> None:
    """List the models that jobs can request, choose the default, retire a model."""
    if context.invoked_subcommand is None:
        list_models(as_json)


@app.command("list")
def list_models(as_json: Json = False) -> None:
    """List each model's workers, queued jobs and revision; * marks the default."""
    with Client.from_env() as client:
        found = client.models()
    if as_json:
        print_json({"models": [_document(model) for model in found]})
        return
    print_lines(*_table(found))


@app.command()
def default(
    name: Annotated[
        str | None, typer.Argument(help="its served name; default: show the current one")
    ] = None,
    clear: Annotated[bool, typer.Option("--clear", help="remove the stored default")] = False,
    as_json: Json = False,
) -> None:
    """Show or set the deployment's default model, for requests without a model."""
    if name is not None and clear:
        raise InvalidRequest("give a model or --clear, not both")
    with Client.from_env() as client:
        if name is not None or clear:
            client.set_default_model(None if clear else name)
        now = client.default_model()
    if as_json:
        print_json(now.model_dump(mode="json"))
        return
    print_lines(_default(now))


@app.command()
def retire(
    name: Annotated[str, typer.Argument(help="as `list` shows it")],
    force: Annotated[
        bool,
        typer.Option("--force", help="retire a model that is in use, and cancel its queued jobs"),
    ] = False,
) -> None:
    """Remove a model that no worker serves; later jobs that name it are refused.

    A worker that serves the model registers it again.
    """
    with Client.from_env() as client:
        canceled = client.retire_model(name, force=force)
    print_lines(f"{name} retired" + (f", {canceled} queued jobs canceled" if canceled else ""))


def _document(model: ServedModel) -> dict[str, object]:
    return {
        **model.model_dump(mode="json"),
        "revisions": model.revisions,
        "workers": [worker.model_dump(mode="json") for worker in model.workers],
    }


def _table(found: Sequence[ServedModel]) -> list[str]:
    rows = [("", "MODEL", "WORKERS", "QUEUED", "REVISION")]
    for model in found:
        revisions = model.revisions or ((model.revision,) if model.revision else ())
        shown = " and ".join(map(_short, revisions))
        mark = "*" if model.default else ""
        rows.append(
            (mark, printable(model.name), str(len(model.workers)), str(model.queued), shown)
        )
    width = max(len(name) for _, name, *_ in rows)
    return [
        f"{mark:1} {name:{width}}  {workers:>7}  {queued:>6}  {revision}".rstrip()
        for mark, name, workers, queued, revision in rows
    ]


def _short(revision: str) -> str:
    return revision[:19]  # sha256: and twelve digits


def _default(now: DefaultModel) -> str:
    if now.name is None:
        return f"no default ({_WHO[now.choice]}): requests must name a model"
    served = (
        "" if now.known else "; no worker has served it, so requests without a model are refused"
    )
    return f"{now.name} (by {_WHO[now.choice]}{served})"
