"""Descriptions of services, which botocore reads from JSON: once in a process."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from botocore.loaders import JSONFileLoader

from maskq import s3
from maskq.s3.sessions import new_session


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that botocore parses."""
    paths: list[str] = []
    load = JSONFileLoader.load_file

    def noted(self: JSONFileLoader, path: str) -> Any:
        content = load(self, path)
        if content is not None:
            paths.append(path)
        return content

    monkeypatch.setattr(JSONFileLoader, "load_file", noted)
    return paths


def connected() -> Any:
    return s3.connect("http://127.0.0.1:1")


def test_a_second_client_parses_no_file(parsed: list[str]) -> None:
    connected()
    parsed.clear()
    connected().get_paginator("list_objects_v2")
    connected().get_paginator("list_objects_v2")
    assert [Path(path).name for path in parsed] in (["paginators-1", "paginators-1.sdk-extras"], [])


def test_clients_leave_the_shared_descriptions_as_they_were_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    for made in [connected() for _ in range(3)]:
        made.get_paginator("list_objects_v2")
        made.generate_presigned_url("get_object", {"Bucket": "b", "Key": "k"})
    names = [("s3", "service-2"), ("s3", "paginators-1"), ("s3", "endpoint-rule-set-1")]
    shared, alone = (
        [maker.get_component("data_loader").load_service_model(*name) for name in names]
        for maker in (new_session(), plain_session())
    )
    assert shared == alone


def plain_session() -> Any:
    import botocore.session

    return botocore.session.get_session()


def test_threads_make_clients_at_the_same_time() -> None:
    made: list[Any] = []
    threads = [threading.Thread(target=lambda: made.append(connected())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [client.meta.service_model.service_name for client in made] == ["s3"] * 8


def test_descriptions_of_aws_data_path_come_first(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AWS_DATA_PATH", str(tmp_path))
    paths = new_session().get_component("data_loader").search_paths
    assert paths[0] == str(tmp_path)
    assert plain_session().get_component("data_loader").search_paths == paths


def test_each_session_reads_the_credentials_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    for key in ("FIRST", "SECOND"):
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", key)
        assert new_session().get_credentials().access_key == key
