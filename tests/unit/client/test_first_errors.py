"""Errors that a new user meets first say what to give."""

from __future__ import annotations

from typing import Any

import pytest

from maskq import Client, InvalidRequest, StoreUnavailable
from maskq.testing import image_bytes

NOBODY = "redis://127.0.0.1:1/0"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"outputs": "mask"}, r"outputs: give a list of values, such as \['mask'\] \(got 'mask'\)"),
        ({"classes": "sky"}, r"classes: give a list of values, such as \['sky'\]"),
        ({"webhook_events": "job.failed"}, "webhook_events: give a list of values, such as"),
        ({"outputs": 3}, r"outputs: give a list of values \(got 3\)"),
        ({"output_urls": "https://a.example/x"}, "output_urls: "),
        ({"output_prefix": "s3://b/x"}, "output_prefix: 'b' in 's3://b/x' is not a valid bucket"),
    ],
)
def test_an_option_of_the_wrong_type_is_named(options: dict[str, Any], said: str) -> None:
    with Client(redis_url=NOBODY) as client, pytest.raises(InvalidRequest, match=f"^{said}"):
        client.submit(image_bytes(), **options)


def test_bytes_that_are_not_an_image_are_called_data() -> None:
    with (
        Client(redis_url=NOBODY) as client,
        pytest.raises(InvalidRequest, match=r"^the data is not an image"),
    ):
        client.submit(b"not an image")


@pytest.mark.parametrize(
    ("given", "variable", "said"),
    [
        (NOBODY, None, "check redis_url and that it runs"),
        (None, NOBODY, "check MASKQ_REDIS_URL and that it runs"),
    ],
)
def test_an_address_without_a_redis_says_what_to_check(
    monkeypatch: pytest.MonkeyPatch, given: str | None, variable: str | None, said: str
) -> None:
    monkeypatch.delenv("MASKQ_REDIS_URL", raising=False)
    if variable:
        monkeypatch.setenv("MASKQ_REDIS_URL", variable)
    with (
        Client(redis_url=given) as client,
        pytest.raises(StoreUnavailable, match=f"Connection refused; {said}$"),
    ):
        client.get("0199d3c0-0000-7000-8000-000000000000").refresh()
