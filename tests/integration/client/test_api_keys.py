"""API keys: only hashes are stored, and a key allows what it was made for until it ends."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from maskq import Client, InvalidRequest, JobNotFound
from maskq.contract.api_keys import Credentials, Scope
from maskq.ledger.calls import api_keys


@pytest.fixture
def client(environment: dict[str, str]) -> Iterator[Client]:
    with Client.from_env() as connected:
        yield connected


def admitted(client: Client, text: str) -> api_keys.Admission:
    shown = Credentials.parse(text)
    assert shown
    return client.session.run(api_keys.admit(shown))


def test_a_new_key_is_admitted_with_what_it_was_made_for(client: Client) -> None:
    made = client.create_api_key(
        ["submit", "read"], name="shop", tenant="acme", requests_per_minute=60
    )
    answer = admitted(client, made.text)
    assert answer.key == made.key
    assert (answer.used, answer.is_expired, answer.is_over_rate) == (1, False, False)
    assert 0 < answer.resets_in_s <= 60
    assert made.key.scopes == {Scope.SUBMIT, Scope.READ}
    assert made.key.allows(Scope.READ)
    assert not made.key.allows(Scope.ADMIN)


def test_admin_includes_the_other_scopes(client: Client) -> None:
    made = client.create_api_key(["admin"])
    assert all(map(made.key.allows, Scope))


def test_the_text_of_a_key_is_not_in_redis(client: Client) -> None:
    made = client.create_api_key(["read"])
    secret = made.text.rpartition("_")[2]
    redis = client.session.ledger.redis
    stored = redis.hgetall(f"{client.key_prefix}:api-key:{made.key.id}")
    assert secret not in str(stored)
    assert made.text not in str(stored)


@pytest.mark.parametrize("change", ["another text", "revoked", "unknown id"])
def test_what_is_no_key_any_more_is_not_admitted(client: Client, change: str) -> None:
    text = (made := client.create_api_key(["read"])).text
    match change:
        case "another text":
            text = text[:-1] + ("a" if text[-1] != "a" else "b")
        case "revoked":
            client.revoke_api_key(made.key.id)
        case "unknown id":
            text = text.replace(made.key.id, "0000000000")
    assert admitted(client, text).key is None


def test_a_request_with_another_text_does_not_use_up_the_rate(client: Client) -> None:
    made = client.create_api_key(["read"], requests_per_minute=1)
    for _ in range(3):
        admitted(client, made.text[:-2] + "xx")
    assert not admitted(client, made.text).is_over_rate
    assert admitted(client, made.text).is_over_rate


def test_an_expired_key_is_told_apart_from_an_unknown_one(client: Client) -> None:
    made = client.create_api_key(["read"], expires_in=3600)
    name = f"{client.key_prefix}:api-key:{made.key.id}"
    client.session.ledger.redis.hset(name, "expires_ms", made.key.created_ms - 1)
    answer = admitted(client, made.text)
    assert answer.is_expired
    assert [key.id for key in client.api_keys()] == [made.key.id]


def test_keys_are_listed_in_the_order_they_were_made(client: Client) -> None:
    made = [client.create_api_key(["read"], name=str(number)).key for number in range(3)]
    made.sort(key=lambda key: (key.created_ms, key.id))  # some within one millisecond
    assert client.api_keys() == made
    client.revoke_api_key(made[1].id)
    assert client.api_keys() == [made[0], made[2]]


def test_revoking_an_unknown_key_is_an_error(client: Client) -> None:
    with pytest.raises(JobNotFound, match="API key"):
        client.revoke_api_key("0000000000")


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({"scopes": []}, "scopes"),
        ({"scopes": ["write"]}, "scopes"),
        ({"scopes": ["read"], "tenant": "a b"}, "tenant"),
        ({"scopes": ["read"], "requests_per_minute": 0}, "requests_per_minute"),
        ({"scopes": ["read"], "expires_in": -1.0}, "expire"),
        ({"scopes": ["read"], "expires_in": float("inf")}, "expire"),
    ],
)
def test_a_key_that_makes_no_sense_is_refused(
    client: Client, wanted: dict[str, object], said: str
) -> None:
    with pytest.raises(InvalidRequest, match=said):
        client.create_api_key(**wanted)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text", ["", "maskq_", "maskq_abc_def", "Bearer x", "maskq_0123456789_" + "ä" * 30, "a" * 5000]
)
def test_other_texts_are_no_keys(text: str) -> None:
    assert Credentials.parse(text) is None
