"""The fake's documents have the fields of a real deployment's, and these tests call every operation."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest
from support.pages import blocks
from support.worlds import SIZE

from maskq import (
    Batch,
    Client,
    Job,
    JobFailed,
    Result,
)
from maskq.testing import FakeClient, damaged_image_bytes, image_bytes

# They need access to Redis and S3; a fake refuses them, as a client over HTTP does.
DIRECT = {
    "api_keys", "create_api_key", "delete_tenant", "key_prefix", "objects", "retire_model",
    "revoke_api_key", "set_default_model", "set_tenant", "settings", "tenant", "tenants",
    "unset_tenant",
}  # fmt: skip
# Tests of the fixture `maskq_fake` call it.
ELSEWHERE = {"from_env"}


# --- both at once -------------------------------------------------------------------------------------


def shape(value: Any) -> Any:
    """Names and types of a JSON document. Names that are data (ids, stages) are left out."""
    match value:
        case dict() if all(isinstance(key, str) and key.isidentifier() for key in value):
            return {key: shape(one) for key, one in value.items() if key != "timings_ms"}
        case dict():
            return "dict"
        case list():
            return [shape(value[0])] if value else []
        case float() | int():
            return "number"
    return type(value).__name__


def documents(client: Client, url: str) -> dict[str, Any]:
    outputs = {"mask", "stats"}
    job = client.submit(image_bytes(SIZE), outputs=outputs, tenant="t", webhook=url)
    job.wait(60)
    broken = client.submit(damaged_image_bytes(), metadata={"a": "b"})
    with pytest.raises(JobFailed):
        broken.wait(60)
    assert job.record is not None
    assert broken.record is not None
    ids = [job.id, broken.id]
    events = {
        f"{event.type} of {ids.index(event.subject)}": event.model_dump(mode="json")
        for event in client.events("0", job_ids=ids, idle=0.5)
    }
    found = {
        "record": job.record.public(),
        "broken": broken.record.public(),
        "delivery": client.deliveries(job.id)[0].public() | {"log": [], "next_ms": 0},
        **events,
    }
    return {name: shape(document) for name, document in found.items()}


def test_records_events_and_deliveries_have_the_same_fields(
    maskq_stack: object,
) -> None:
    fake = documents(FakeClient(), "http://127.0.0.1:9/")
    with Client.from_env() as client:
        real = documents(client, "http://127.0.0.1:9/")
    # The fake reads no ETag.
    for result in (real["record"]["result"], real["maskq.job.succeeded of 0"]["data"]["result"]):
        result.pop("source_etag", None)
    assert fake == real


def test_stack_block_of_the_testing_page(maskq_stack: object) -> None:
    (block,) = [one for one in blocks("docs/testing.md") if one.kind == "stack"]
    names: dict[str, Any] = {"Client": Client, "image_bytes": image_bytes}
    exec(block.text, names)
    names["test_on_a_real_stack"](maskq_stack)


# --- the surface --------------------------------------------------------------------------------------


def public(owner: type) -> set[str]:
    return {name for name in dir(owner) if not name.startswith("_")}


def called(owner: type) -> set[str]:
    """Attributes that this folder reads of variables called `client`, `job`, `batch` and `result`."""
    found = set()
    for file in Path(__file__).parent.glob("test_*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            match node:
                case ast.Attribute(value=ast.Name(id=name), attr=attribute):
                    if name == owner.__name__.lower():
                        found.add(attribute)
    return found


@pytest.mark.parametrize("owner", [Client, Job, Batch, Result])
def test_every_public_operation_is_in_the_contract(owner: type) -> None:
    missing = public(owner) - called(owner) - DIRECT - ELSEWHERE
    assert not missing, f"add a test here that calls {owner.__name__}.{', '.join(sorted(missing))}"
