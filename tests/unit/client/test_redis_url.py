"""MASKQ_REDIS_URL: what its forms mean, and what is refused with which words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from maskq.errors import InvalidRequest
from maskq.ledger import RedisUrl


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://", {"hosts": (("localhost", 6379),), "db": 0, "password": None, "tls": None}),
        ("redis://h:7000/3", {"hosts": (("h", 7000),), "db": 3}),
        ("redis://h?db=3", {"hosts": (("h", 6379),), "db": 3}),
        ("redis://h/3?db=3", {"db": 3}),
        ("redis://h/", {"db": 0}),
        ("redis://:s%2Fe%40c%3Ar%25et@h", {"username": None, "password": "s/e@c:r%et"}),
        ("redis://ada%40x:pw@h", {"username": "ada@x", "password": "pw"}),
        ("redis://h?password=pw&username=ada", {"username": "ada", "password": "pw"}),
        ("redis://[::1]:7000/1", {"hosts": (("::1", 7000),), "place": "[::1]:7000/1"}),
        ("rediss://h", {"tls": {}}),
        (
            "rediss://h?ssl_cert_reqs=CERT_OPTIONAL&ssl_check_hostname=false",
            {"tls": {"ssl_cert_reqs": "optional", "ssl_check_hostname": False}},
        ),
        ("unix:///run/r.sock?db=2", {"path": "/run/r.sock", "db": 2, "hosts": ()}),
        ("unix://ada:pw@/run/r.sock", {"path": "/run/r.sock", "username": "ada", "password": "pw"}),
        ("redis+socket:///run/r.sock?virtual_host=2", {"path": "/run/r.sock", "db": 2}),
        (
            "redis://h?socket_timeout=7.5&socket_connect_timeout=2&health_check_interval=9"
            "&client_name=ours&protocol=2&socket_keepalive=no",
            {
                "options": {
                    "socket_timeout": 7.5,
                    "socket_connect_timeout": 2.0,
                    "health_check_interval": 9,
                    "client_name": "ours",
                    "protocol": 2,
                    "socket_keepalive": False,
                }
            },
        ),
        ("redis://h?max_connections=7", {"max_connections": 7}),
        (
            "sentinel://:pw@a:1;sentinel://b:2;sentinel://c/4?master_name=mine",
            {
                "hosts": (("a", 1), ("b", 2), ("c", 26379)),
                "service": "mine",
                "db": 4,
                "password": "pw",
                "sentinel_password": None,
                "tls": None,
                "place": "'mine' of Sentinel a:1, b:2, c:26379 (database 4)",
            },
        ),
        (
            "sentinels://a;b/0?master_name=mine&sentinel_username=s&sentinel_password=t",
            {
                "hosts": (("a", 26379), ("b", 26379)),
                "sentinel_username": "s",
                "sentinel_password": "t",
                "tls": {},
            },
        ),
    ],
)
def test_what_a_url_means(url: str, expected: dict[str, Any]) -> None:
    parsed = RedisUrl.parse(url)
    assert {name: getattr(parsed, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("localhost:6379", "is not a URL of a Redis"),
        ("http://h", "is not a URL of a Redis"),
        ("redis+cluster://h", "clusters are not supported"),
        ("redis://:pa/ss@h/0", "%2F for /"),
        ("redis://:pa#swordfish@h/0", "%2F for /"),
        ("redis://:[swordfish@h/0", "%2F for /"),
        ("redis://h:port/0", "is not a valid URL: percent-encode"),
        ("redis://h/abc", "names database 'abc'"),
        ("redis://h/-1", "names database '-1'"),
        ("redis://h/1?db=2", "several databases: 1, 2"),
        ("redis://h?db=1&db=2", "says db twice"),
        ("redis://h?socket_timout=9", "did you mean socket_timeout?"),
        ("redis://h?zzz=9", "unknown parameter 'zzz'; there are socket_timeout"),
        ("redis://h?socket_timeout=1", "at least 5 seconds: commands wait up to 4 s"),
        ("redis://h?socket_timeout=soon", "socket_timeout=soon: it is a number"),
        ("redis://h?socket_timeout=nan", "at least 5 seconds"),
        ("redis://h?protocol=3", "protocol=3: it is 2"),
        ("redis://h?max_connections=0", "at least 1"),
        ("redis://h?ssl_ca_certs=/x", "does not ask for TLS: write rediss://"),
        ("rediss://h?ssl_ca_certs=/no/such/file", "names /no/such/file, which is not there"),
        ("rediss://h?ssl_cert_reqs=maybe", "required, optional or none"),
        ("rediss://h?ssl_check_hostname=maybe", "true or false"),
        ("redis://h?master_name=mine", "for sentinel:// only"),
        ("sentinel://a;b", "names no service"),
        ("sentinel://a;redis://b?master_name=m", "mixes sentinel:// and redis://"),
        ("unix://run/r.sock", "three slashes"),
        ("unix://", "three slashes"),
    ],
)
def test_what_is_refused_is_one_line_that_names_the_setting(url: str, said: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        RedisUrl.parse(url)
    text = str(refused.value)
    assert said in text
    assert text.startswith("MASKQ_REDIS_URL ")
    assert "\n" not in text
    assert "swordfish" not in text


def test_a_password_is_in_no_description() -> None:
    url = RedisUrl.parse("sentinel://ada:swordfish@a?master_name=m&sentinel_password=swordfish")
    assert "swordfish" not in f"{url} {url!r} {url.place}"


def test_a_ca_file_counts_where_tls_is_asked_for_and_the_url_names_none(tmp_path: Path) -> None:
    ca, other = tmp_path / "ca.pem", tmp_path / "other.pem"
    other.touch()
    assert RedisUrl.parse("rediss://h", ca).tls == {"ssl_ca_certs": str(ca)}
    named = RedisUrl.parse(f"rediss://h?ssl_ca_certs={other}", ca)
    assert named.tls == {"ssl_ca_certs": str(other)}
    assert RedisUrl.parse("redis://h", ca).tls is None
