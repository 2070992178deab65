"""Redis and S3 of the one-machine stack, with real processes."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import boto3
import pytest
import redis
import urllib3
from botocore.config import Config
from botocore.exceptions import ClientError
from redis.backoff import NoBackoff
from redis.retry import Retry
from support.process_tree import command_of, descendants

from maskq.process.stop_signal import StopSignal
from maskq_standalone.children.child import ChildError
from maskq_standalone.servers.redis import RedisBinary, RedisServer, find
from maskq_standalone.servers.s3 import S3Server
from maskq_standalone.servers.s3_process import Authorizer
from maskq_standalone.stack import Stack


def client_with(stack: Stack, key: str, secret: str, **config: str) -> object:
    return boto3.client(
        "s3",
        endpoint_url=stack.s3.endpoint_url,
        aws_access_key_id=key,
        aws_secret_access_key=secret,
        region_name="us-east-1",
        config=Config(retries={"total_max_attempts": 1}, **config),
    )


class TestRedis:
    def test_answers_with_its_password(self, stack: Stack) -> None:
        with redis.Redis.from_url(stack.environment["MASKQ_REDIS_URL"]) as client:
            assert client.ping()
            kept = client.config_get("appendonly", "appendfsync", "maxmemory-policy", "bind")
        assert kept == {
            "appendonly": "yes",
            "appendfsync": "everysec",
            "maxmemory-policy": "noeviction",
            "bind": "127.0.0.1",
        }

    def test_refuses_without_password(self, stack: Stack) -> None:
        with (
            redis.Redis(port=stack.redis.port, retry=Retry(NoBackoff(), 0)) as client,
            pytest.raises(redis.AuthenticationError),
        ):
            client.ping()

    def test_password_is_in_no_command_line(self, stack: Stack) -> None:
        shown = [part for pid in descendants(os.getpid()) for part in command_of(pid)]
        assert shown
        assert not any(stack.redis.password in part for part in shown)


class TestS3:
    def test_put_and_get(self, stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, value in stack.environment.items():
            monkeypatch.setenv(name, value)
        # A session of its own: the default one has the credentials of whichever test used it first.
        client = boto3.Session().client(
            "s3", endpoint_url=stack.environment["MASKQ_S3_ENDPOINT_URL"]
        )
        client.put_object(Bucket="maskq", Key="a b/é+.bin", Body=b"pixels", Metadata={"k": "v"})
        answer = client.get_object(Bucket="maskq", Key="a b/é+.bin")
        assert (answer["Body"].read(), answer["Metadata"]) == (b"pixels", {"k": "v"})

    @pytest.mark.parametrize(
        ("key", "secret", "code"),
        [
            ("AKIAUNKNOWN", None, "InvalidAccessKeyId"),
            (None, "wrong", "SignatureDoesNotMatch"),
            ("test", "test", "InvalidAccessKeyId"),  # the emulator's own way in
            ("000000000000", "any", "InvalidAccessKeyId"),  # and its other one
        ],
    )
    def test_refuses_other_credentials(
        self, stack: Stack, key: str | None, secret: str | None, code: str
    ) -> None:
        client = client_with(
            stack, key or stack.s3.access_key_id, secret or stack.s3.secret_access_key
        )
        with pytest.raises(ClientError, match=code):
            client.list_objects_v2(Bucket="maskq")

    @pytest.mark.parametrize("secret", [None, "wrong"])
    def test_presigned(self, stack: Stack, secret: str | None) -> None:
        stack.s3.client().put_object(Bucket="maskq", Key="presigned", Body=b"pixels")
        signer = client_with(
            stack,
            stack.s3.access_key_id,
            secret or stack.s3.secret_access_key,
            signature_version="s3v4",
        )
        url = signer.generate_presigned_url(
            "get_object", Params={"Bucket": "maskq", "Key": "presigned"}
        )
        if secret is None:
            assert urllib3.request("GET", url).data == b"pixels"
        else:
            assert urllib3.request("GET", url).status == 403

    @pytest.mark.parametrize(
        ("method", "path"),
        [
            ("POST", "/_ministack/reset"),  # would delete every object
            ("GET", "/latest/meta-data/iam/security-credentials/"),
            ("GET", "/maskq?list-type=2"),
            ("POST", "/maskq?delete&X-Amz-Credential=test/20260101/us-east-1/s3/aws4_request"),
        ],
    )
    def test_refuses_the_unsigned(self, stack: Stack, method: str, path: str) -> None:
        assert urllib3.request(method, stack.s3.endpoint_url + path).status == 403

    def test_refuses_a_write_that_the_disk_cannot_take(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sent: list[dict[str, object]] = []

        async def send(message: dict[str, object]) -> None:
            sent.append(message)

        monkeypatch.setattr("maskq_standalone.servers.s3_process.RESERVE_BYTES", 2**60)
        form = [(b"content-type", b"multipart/form-data; boundary=x")]
        scope = {"type": "http", "method": "POST", "path": "/maskq", "query_string": b""}
        scope["headers"] = form
        authorizer = Authorizer(None, "key", "secret", str(tmp_path))
        asyncio.run(authorizer(scope, None, send))
        assert sent[0]["status"] == 503
        assert b"No space left on the disk" in sent[1]["body"]


class TestServers:
    def test_moves_to_another_port_unless_one_was_asked_for(
        self, stack: Stack, tmp_path: Path
    ) -> None:
        binary = find(pinned=True)
        asked = RedisServer(tmp_path, password="secret", binary=binary, port=stack.redis.port)
        with pytest.raises(ChildError, match=rf"127\.0\.0\.1:{asked.port} is taken"):
            asked.start()
        free = RedisServer(tmp_path, password="secret", binary=binary)
        free.port = stack.redis.port  # lost between its choice and its use
        try:
            free.start()
            assert free.port != stack.redis.port
        finally:
            free.stop()

    def test_s3_announces_new_objects_also_after_a_crash(self, tmp_path: Path) -> None:
        server = S3Server(
            tmp_path, access_key_id="key", secret_access_key="secret", watched={"photos"}
        )
        try:
            server.start()
            server.kill()
            server.restart(StopSignal())
            server.client().put_object(Bucket="photos", Key="1.jpg", Body=b"pixels")
            queue = server.connect_uploads()
            answer = server.client("sqs").receive_message(
                QueueUrl=queue, MaxNumberOfMessages=10, WaitTimeSeconds=4
            )
            assert any("1.jpg" in message["Body"] for message in answer["Messages"])
        finally:
            server.stop()

    def test_data_directory_that_is_a_file(self, tmp_path: Path) -> None:
        taken = tmp_path / "file"
        taken.touch()
        with pytest.raises(ChildError, match=r"redis could not start: .*file: File exists"):
            RedisServer(taken, password="secret", log=tmp_path / "redis.log").start()
        with pytest.raises(ChildError, match=r"s3 could not start: .*file/objects: Not a dir"):
            S3Server(taken, access_key_id="key", secret_access_key="secret").start()

    def test_redis_found_by_setting(self, monkeypatch: pytest.MonkeyPatch) -> None:
        wheels = find(pinned=True)
        monkeypatch.setenv("MASKQ_STACK_REDIS_SERVER", str(wheels.path))
        assert find() == wheels
        monkeypatch.setenv("MASKQ_STACK_REDIS_SERVER", "no-such-redis")
        with pytest.raises(ChildError, match="no-such-redis is not a program here"):
            find()

    def test_redis_that_is_too_old(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        old = tmp_path / "redis-server"
        old.write_text("#!/bin/sh\necho Redis server v=6.2.16 sha=0:0 malloc=libc\n")
        old.chmod(0o755)
        assert not RedisBinary(old, "redis", "6.2.16").supported
        with pytest.raises(ChildError, match=r"is 6\.2\.16, at least 7\.0 is needed"):
            find(old)
        monkeypatch.setenv("PATH", str(tmp_path))
        assert find() == find(pinned=True)  # on PATH it is passed over
