"""A group of event readers is deleted, over both transports."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.transports import TRANSPORTS, connected
from typer.testing import CliRunner

from maskq import Client, EventsLost, InvalidRequest, cli
from maskq.ledger import calls


@pytest.fixture(params=TRANSPORTS)
def client(
    environment: dict[str, str], request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Client]:
    with connected(request.param, monkeypatch) as (client, direct):
        direct.session.ledger.run(calls.register_model("some", {}))
        yield client


def subjects(client: Client, group: str, *, since: str = "0") -> list[str]:
    return [event.subject for event in client.events(since, group=group, idle=0.3)]


def test_a_deleted_group_begins_anew(client: Client) -> None:
    ids = [client.submit("s3://photos/1.jpg").id for _ in range(2)]
    reading = client.events("0", group="shop/über & out", idle=5)
    next(reading)
    reading.close()  # type: ignore[attr-defined]  # without a confirmation
    assert client.delete_event_group("shop/über & out") is True
    assert client.delete_event_group("shop/über & out") is False
    assert subjects(client, "shop/über & out") == ids
    assert subjects(client, "shop/über & out") == []


def test_no_group_of_a_deployment_without_events(client: Client) -> None:
    assert client.delete_event_group("shop") is False
    with pytest.raises(InvalidRequest, match="group is empty"):
        client.delete_event_group("")


def test_who_reads_meanwhile_is_told(client: Client) -> None:
    job_id = client.submit("s3://photos/1.jpg").id
    reading = client.events("0", group="shop", idle=5)
    assert next(reading).subject == job_id
    client.delete_event_group("shop")
    with pytest.raises(EventsLost, match="group of event readers was deleted"):
        next(reading)
    assert client.delete_event_group("shop") is False  # who was told has not made it again


def test_a_shell_deletes_a_group(client: Client) -> None:
    client.submit("s3://photos/1.jpg")
    assert subjects(client, "audit")
    for said in ("deleted", "did not exist"):
        ran = CliRunner().invoke(cli.build(), ["events", "--group", "audit", "--delete-group"])
        assert (ran.exit_code, ran.output) == (0, f"group audit {said}\n")
    ran = CliRunner().invoke(cli.build(), ["events", "--delete-group"])
    assert isinstance(ran.exception, InvalidRequest)
