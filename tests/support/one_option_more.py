"""Runs the package as if contract/options.py had one option more, and prints where it appears.

python tests/support/one_option_more.py    (with the repository's root in PYTHONPATH)
"""

from __future__ import annotations

import inspect
import json
import pydoc
from typing import Any

from changed_modules import change

OPTIONS = "maskq.contract.options"
END_OF_FIELDS = '    @model_validator(mode="after")\n    def _check_together'
FIELD = """    grain: Annotated[int | None, Flag("--grain-size")] = Field(
        default=None, description="Size of grains."
    )

"""
LAST_KEYWORD = "    max_attempts: int | None\n"
KEYWORD = "    grain: int | None\n"


CHANGES = {END_OF_FIELDS: FIELD + END_OF_FIELDS, LAST_KEYWORD: LAST_KEYWORD + KEYWORD}


def appearances() -> dict[str, bool]:
    """Place → whether the option `grain` appears there."""
    from starlette.datastructures import FormData
    from tools.reference.options import page
    from typer.testing import CliRunner

    from maskq import AsyncClient, Client, cli
    from maskq.client.requests import build
    from maskq.contract import asyncapi
    from maskq.contract.locations import S3Uri
    from maskq_gateway.api.bodies import options_of
    from maskq_gateway.api.documents import add_schemas, described
    from maskq_gateway.api.jobs import options
    from maskq_gateway.api.schemas import NewBatch, NewJob
    from maskq_gateway.rules.rule import Rules

    openapi: dict[str, Any] = {}
    add_schemas(openapi, NewJob, NewBatch)
    schemas = openapi["components"]["schemas"]
    bodies = described(NewJob, multipart=True)["requestBody"]["content"]
    form = bodies["multipart/form-data"]["schema"]
    table = [{"name": "a", "bucket": "photos", "grain": 7}]
    (rule,) = Rules.of(table, own_output=S3Uri("maskq", "")).each
    request: Any = build("s3://bucket/key", {"grain": 7})  # type: ignore[typeddict-unknown-key]
    submit, submit_each = map(inspect.signature, (Client.submit, AsyncClient.submit_each))
    help_text = CliRunner().invoke(cli.build(), ["submit", "--help"]).output
    asked = asyncapi.document()["components"]["schemas"]["SegmentRequest"]
    meaning = "Size of grains."
    return {
        "Client.submit": submit.parameters["grain"].default is None,
        "AsyncClient.submit_each": "grain" in submit_each.parameters,
        "help(Client.segment)": "grain: 'int | None' = None" in pydoc.render_doc(Client.segment),
        "the client's request": request.grain == 7,
        "the wire": json.loads(request.wire())["grain"] == 7,
        "a rule": rule.options()["grain"] == 7 and rule.example().model_dump()["grain"] == 7,
        "maskq submit --help": "--grain-size" in help_text and meaning in help_text,
        "a JSON body": options({"grain": 7}) == {"grain": 7},
        "a multipart form": options(options_of(FormData([("grain", "7")]))) == {"grain": 7},
        "OpenAPI of a job": schemas["NewJob"]["properties"]["grain"]["description"] == meaning,
        "OpenAPI of a batch": "grain" in schemas["JobOptions"]["properties"],
        "OpenAPI of a form": form["properties"]["grain"]["description"] == meaning,
        "AsyncAPI": asked["properties"]["grain"]["description"] == meaning,
        "docs/reference/options.md": "| `grain` | `grain` | `--grain-size` | integer |" in page(),
    }


if __name__ == "__main__":
    change({OPTIONS: CHANGES})
    print(json.dumps(appearances()))
