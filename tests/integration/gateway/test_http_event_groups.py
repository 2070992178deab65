"""Readers of a group share the event stream over HTTP; an unconfirmed event comes again."""

from __future__ import annotations

import time
from typing import Any

import pytest
from support.http_api import Api, Events, uploaded

from maskq import Client


def stream(
    api: Api, consumer: str = "a", group: str = "shop", since: str = "0", more: str = ""
) -> Events:
    query = f"group={group}&consumer={consumer}&since={since}&type=job.queued{more}"
    return Events(api, f"/v1/events?{query}")


def confirm(api: Api, *cursors: str, group: str = "shop") -> int:
    answer = api.post("/v1/events/confirm", {"group": group, "cursors": list(cursors)})
    assert answer.status == 200, answer.data
    return int(answer.json()["confirmed"])


def subjects(events: Events, count: int) -> list[str]:
    return [str(events.next()[1]["subject"]) for _ in range(count)]


def test_what_is_not_confirmed_comes_again_to_the_same_reader(api: Api) -> None:
    ids = [uploaded(api)["id"] for _ in range(3)]
    events = stream(api)
    got = [events.next() for _ in range(3)]
    assert [event["subject"] for _, event in got] == ids
    assert confirm(api, got[1][0]) == 1
    events.close()
    events = stream(api)
    assert subjects(events, 2) == [ids[0], ids[2]]
    assert confirm(api, got[0][0], got[2][0]) == 2
    assert confirm(api, got[0][0]) == 0
    events.close()
    events, last = stream(api), uploaded(api)["id"]
    assert subjects(events, 1) == [last]
    events.close()


def test_a_new_group_begins_now_or_where_it_says(api: Api) -> None:
    uploaded(api)
    events = Events(api, "/v1/events?group=late&consumer=a&type=job.queued")
    second = uploaded(api)["id"]
    assert subjects(events, 1) == [second]
    events.close()


def test_readers_of_a_group_share_and_groups_do_not(api: Api) -> None:
    one, two = (
        stream(api, "a", more="&max_unconfirmed=1"),
        stream(api, "b", more="&max_unconfirmed=1"),
    )
    other = stream(api, "a", group="other")
    ids = [uploaded(api)["id"] for _ in range(2)]
    assert sorted(subjects(one, 1) + subjects(two, 1)) == sorted(ids)
    assert subjects(other, 2) == ids
    for events in (one, two, other):
        events.close()


def test_a_reader_gets_the_next_event_when_it_confirms(api: Api) -> None:
    events = stream(api, more="&max_unconfirmed=1")
    ids = [uploaded(api)["id"] for _ in range(3)]
    for job_id in ids:
        cursor, event = events.next()
        assert event["subject"] == job_id
        confirm(api, cursor)
    events.close()


def test_another_reader_takes_over_what_is_not_confirmed_in_time(api: Api) -> None:
    job_id = uploaded(api)["id"]
    lost = stream(api, "lost")
    cursor, _ = lost.next()
    lost.close()
    # One at a time: what it has taken over does not come again meanwhile
    events = stream(api, "other", more="&take_over=0.1&max_unconfirmed=1")
    assert events.next()[0] == cursor
    assert confirm(api, cursor) == 1
    second = uploaded(api)["id"]
    assert subjects(events, 1) == [second]
    assert second != job_id
    events.close()


def test_taking_over_at_once_does_not_flood(api: Api) -> None:
    """A reader's own unconfirmed event comes again, ten times a second at most."""
    job_id = uploaded(api)["id"]
    began = time.monotonic()
    events = stream(api, more="&take_over=0")
    assert subjects(events, 6) == 6 * [job_id]
    assert time.monotonic() - began > 0.4
    events.close()


def test_a_direct_client_and_http_share_a_group(api: Api, client: Client) -> None:
    first = uploaded(api)["id"]
    for event in client.events(since="0", group="shop", types=["job.queued"], idle=5):
        assert event.subject == first
        break
    # The direct reader left before it confirmed
    events = stream(api, "b", more="&take_over=0")
    assert subjects(events, 1) == [first]
    events.close()


def test_a_tenants_group_is_its_own_and_sees_its_own_jobs(api: Api, acme: Api, other: Api) -> None:
    uploaded(api)
    uploaded(other)
    mine = uploaded(acme)["id"]
    events = stream(acme)
    cursor, event = events.next()
    assert event["subject"] == mine
    assert confirm(other, cursor) == 0
    assert confirm(api, cursor) == 0
    assert confirm(acme, cursor) == 1
    events.close()


def test_a_group_is_told_once_that_events_were_trimmed(api: Api, client: Client) -> None:
    events = stream(api, since="0")
    uploaded(api)
    confirm(api, events.next()[0])
    events.close()
    uploaded(api)
    uploaded(api)
    redis = client.session.ledger.redis
    redis.xtrim(f"{client.key_prefix}:events", maxlen=1, approximate=False)
    path = "/v1/events?group=shop&consumer=a"
    assert "trimmed" in api.problem(api.get(path), 410, "not_found")
    events = Events(api, path)
    events.next()
    events.close()


def test_a_reader_is_told_of_unconfirmed_events_that_were_trimmed(api: Api, client: Client) -> None:
    events = stream(api)
    uploaded(api)
    events.next()
    events.close()
    redis = client.session.ledger.redis
    redis.xtrim(f"{client.key_prefix}:events", maxlen=0, approximate=False)
    events = stream(api)
    assert events.next_block().startswith("event: maskq.events.lost\ndata: 1 events")
    last = uploaded(api)["id"]
    assert subjects(events, 1) == [last]
    events.close()


def delete(api: Api, group: str) -> int:
    return api.ask("DELETE", "/v1/events/groups", fields={"group": group}).status


def test_a_deleted_group_ends_its_streams_and_begins_anew(api: Api) -> None:
    job_id = uploaded(api)["id"]
    events = stream(api)
    assert subjects(events, 1) == [job_id]
    assert delete(api, "shop") == 204
    assert "event: maskq.events.lost" in events.next_block()
    events.close()
    answer = api.ask("DELETE", "/v1/events/groups", fields={"group": "shop"})
    assert "'shop'" in api.problem(answer, 404, "not_found")
    events = stream(api)
    assert subjects(events, 1) == [job_id]
    events.close()


def test_a_tenant_deletes_its_own_groups_alone(api: Api, acme: Api, other: Api) -> None:
    uploaded(acme)
    stream(acme).close()
    assert [delete(one, "shop") for one in (api, other, acme)] == [404, 404, 204]


# --- bad input ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "query",
    [
        "group=shop", "consumer=a", "group=&consumer=a", "group=shop&consumer=",
        "group=a%00b&consumer=a", f"group={'x' * 201}&consumer=a", "group=shop&consumer=a&since=x",
        "group=shop&consumer=a&max_unconfirmed=0", "group=shop&consumer=a&take_over=-1",
        "group=shop&consumer=a&take_over=nan", "group=shop&consumer=a&type=job.exploded",
    ],
)  # fmt: skip
def test_a_reader_that_makes_no_sense_is_refused(api: Api, query: str) -> None:
    api.problem(api.get(f"/v1/events?{query}"), 422, "invalid_request")


@pytest.mark.parametrize(
    "document",
    [
        {}, {"group": "shop"}, {"group": "shop", "cursors": []}, {"group": "", "cursors": ["1-0"]},
        {"group": "shop", "cursors": ["1"]}, {"group": "shop", "cursors": ["+"]},
        {"group": "shop", "cursors": "1-0"}, {"group": "shop", "cursors": ["1-0"] * 1001},
        {"group": "shop", "cursors": [f"{'9' * 30}-0"]}, {"group": 5, "cursors": ["1-0"]},
        {"group": "\ud800", "cursors": ["1-0"]}, {"group": "shop", "cursors": ["1-0"], "consumer": "a"},
    ],
)  # fmt: skip
def test_a_confirmation_that_makes_no_sense_is_refused(api: Api, document: Any) -> None:
    api.problem(api.post("/v1/events/confirm", document), 422, "invalid_request")


def test_confirming_in_an_unknown_group_confirms_nothing(api: Api) -> None:
    assert confirm(api, "1-0", group="nobody") == 0


def test_a_confirmation_needs_a_key_that_reads(stranger: Api, client: Client) -> None:
    body = {"group": "shop", "cursors": ["1-0"]}
    stranger.problem(stranger.post("/v1/events/confirm", body), 401, "access_denied")
    submitter = stranger.with_key(client.create_api_key(["submit"]).text)
    submitter.problem(submitter.post("/v1/events/confirm", body), 403, "access_denied")


@pytest.mark.parametrize("query", ["", "?group=", "?group=a%00b", f"?group={'x' * 201}"])
def test_a_deletion_that_makes_no_sense_is_refused(api: Api, query: str) -> None:
    answer = api.ask("DELETE", f"/v1/events/groups{query}")
    api.problem(answer, 422, "invalid_request")


def test_a_deletion_needs_a_key_that_reads(stranger: Api, client: Client) -> None:
    assert delete(stranger, "shop") == 401
    assert delete(stranger.with_key(client.create_api_key(["submit"]).text), "shop") == 403
