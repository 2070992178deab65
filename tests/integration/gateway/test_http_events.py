"""Events over HTTP: as they happen, from where a reader left off, and of whom."""

from __future__ import annotations

import pytest
from integration.worker.test_pipeline import Bench
from support.http_api import Api, Events, uploaded

from maskq import Client


def test_events_arrive_as_they_happen_and_from_where_a_reader_left_off(
    api: Api, bench: Bench
) -> None:
    live = Events(api, "/v1/events")
    job = uploaded(api)
    cursor, queued = live.next()
    assert (queued["type"], queued["subject"]) == ("maskq.job.queued", job["id"])
    bench.pipeline.run("smallest")
    kinds = [live.next()[1]["type"] for _ in range(2)]
    assert kinds == ["maskq.job.running", "maskq.job.succeeded"]
    live.close()
    later = Events(api, "/v1/events?type=job.succeeded", last=cursor)
    assert later.next()[1]["type"] == "maskq.job.succeeded"
    later.close()


def test_a_reader_that_loses_the_connection_before_the_first_event_misses_none(api: Api) -> None:
    uploaded(api)
    live = Events(api, "/v1/events")
    live.close()
    cursor = live.begin.splitlines()[0].removeprefix("id: ")
    job = uploaded(api)
    later = Events(api, "/v1/events", last=cursor)
    assert later.next()[1]["subject"] == job["id"]
    later.close()


def test_events_are_of_the_asked_jobs_and_of_the_own_tenant(
    api: Api, acme: Api, other: Api
) -> None:
    mine, all_of_acme = uploaded(acme), Events(acme, "/v1/events?since=0")
    assert all_of_acme.next()[1]["subject"] == mine["id"]
    uploaded(other)
    second = uploaded(acme)
    assert all_of_acme.next()[1]["subject"] == second["id"]
    one = Events(api, f"/v1/events?since=0&job={second['id']}")
    assert one.next()[1]["subject"] == second["id"]
    all_of_acme.close()
    one.close()


@pytest.mark.parametrize(
    "query",
    [
        "since=yesterday", "type=job.exploded", "since=18446744073709551616-0",
        "since=1-18446744073709551616", "group=a&consumer=b&since=18446744073709551616-0",
    ],
)  # fmt: skip
def test_events_that_do_not_exist_cannot_be_followed(api: Api, query: str) -> None:
    api.problem(api.get(f"/v1/events?{query}"), 422, "invalid_request")


def test_a_cursor_that_was_trimmed_away_or_lies_ahead_is_gone(api: Api, client: Client) -> None:
    uploaded(api)
    api.problem(api.get("/v1/events?since=99999999999999-0"), 410, "not_found")
    redis = client.session.ledger.redis
    uploaded(api)
    redis.xtrim(f"{client.key_prefix}:events", maxlen=0, approximate=False)
    api.problem(api.get("/v1/events?since=1-0"), 410, "not_found")
