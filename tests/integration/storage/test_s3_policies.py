"""The policies of deploy/s3: what each role may do in the store, and that it may do nothing else.

The emulator evaluates them as IAM does.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from support.acl_stack import INPUT_BUCKET, POLICIES, S3_ROLES, IamServer

from maskq import s3
from maskq.contract.locations import S3Uri
from maskq.errors import StoreRefused
from maskq_gateway.api.deployment import check_store
from maskq_standalone.servers.s3 import REGION

OWN, OTHER = "maskq", "payroll"  # buckets; the first is the deployment's
UPLOAD = "maskq/job/input"
OUTPUT = "maskq/job/token/mask.png"
MANIFEST = "maskq/job/result.json"
OUTSIDE = "backup/dump.sql"  # in the deployment's bucket, not below its prefix

Request = Callable[[Any], object]


def put(bucket: str, key: str) -> Request:
    return lambda s3: s3.put_object(Bucket=bucket, Key=key, Body=b"x")


def get(bucket: str, key: str) -> Request:
    return lambda s3: s3.get_object(Bucket=bucket, Key=key)["Body"].read()


def delete(bucket: str, key: str) -> Request:
    return lambda s3: s3.delete_object(Bucket=bucket, Key=key)


def listed(bucket: str, prefix: str) -> Request:
    return lambda s3: s3.list_objects_v2(Bucket=bucket, Prefix=prefix)


def copy(source: str, key: str) -> Request:
    return lambda s3: s3.copy_object(Bucket=OWN, Key=key, CopySource={"Bucket": OWN, "Key": source})


REQUESTS: dict[str, Request] = {
    "upload": put(OWN, UPLOAD),
    "write an output": put(OWN, OUTPUT),
    "commit": put(OWN, MANIFEST),
    "write to an output prefix": put(OWN, "masks/job/token/mask.png"),
    "read in an output prefix": get(OWN, "masks/job/mask.png"),
    "delete in an output prefix": delete(OWN, "masks/job/mask.png"),
    "list a job in an output prefix": listed(OWN, "masks/job/"),
    "write outside the prefix": put(OWN, OUTSIDE),
    "write an input": put(INPUT_BUCKET, "1.jpg"),
    "write elsewhere": put(OTHER, "maskq/job/input"),
    "read an upload": get(OWN, UPLOAD),
    "read an output": get(OWN, OUTPUT),
    "read outside the prefix": get(OWN, OUTSIDE),
    "read an input": get(INPUT_BUCKET, "1.jpg"),
    "read elsewhere": get(OTHER, "1.jpg"),
    "delete an output": delete(OWN, OUTPUT),
    "delete outside the prefix": delete(OWN, OUTSIDE),
    "delete an input": delete(INPUT_BUCKET, "1.jpg"),
    "delete elsewhere": delete(OTHER, "1.jpg"),
    "list a job": listed(OWN, "maskq/job/"),
    "list outside the prefix": listed(OWN, "backup/"),
    "list all": listed(OWN, ""),
    "list inputs": listed(INPUT_BUCKET, ""),
    "list elsewhere": listed(OTHER, ""),
    "copy an upload": copy(UPLOAD, "maskq/other/input"),
    "copy from outside": copy(OUTSIDE, "maskq/other/input"),
    "make a bucket": lambda s3: s3.create_bucket(Bucket="new"),
    "open the bucket to all": lambda s3: s3.put_bucket_policy(Bucket=OWN, Policy="{}"),
    "list buckets": lambda s3: s3.list_buckets(),
}
_PUBLISHER = {
    "upload", "read an upload", "read an output", "delete an output", "list a job", "list inputs",
    "copy an upload", "read in an output prefix", "delete in an output prefix",
    "list a job in an output prefix",
}  # fmt: skip
MAY: dict[str, set[str]] = {
    "publisher": _PUBLISHER,
    "reader": {"read an upload", "read an output", "read in an output prefix"},
    "worker": {
        "write to an output prefix", "read in an output prefix", "delete in an output prefix",
        "list a job in an output prefix",
        "upload", "write an output", "commit", "read an upload", "read an output", "read an input",
        "read outside the prefix", "delete an output", "list a job", "list outside the prefix",
        "list all", "list inputs", "copy an upload", "copy from outside",
    },
    "webhooks": set(),
    "gateway": _PUBLISHER | {"read an input"},
}  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[IamServer]:
    running = IamServer(
        tmp_path_factory.mktemp("s3"),
        access_key_id="ROOTKEY" + secrets.token_hex(4).upper(),
        secret_access_key=secrets.token_urlsafe(),
        bucket=OWN,
    )
    try:
        running.start()
        for bucket in (INPUT_BUCKET, OTHER):
            running.client().create_bucket(Bucket=bucket)
        yield running
    finally:
        running.stop()


@pytest.fixture
def objects(server: IamServer) -> None:
    """What there is, before each request."""
    for bucket, key in (
        (OWN, UPLOAD), (OWN, OUTPUT), (OWN, OUTSIDE), (OWN, "masks/job/mask.png"),
        (INPUT_BUCKET, "1.jpg"), (OTHER, "1.jpg"),
    ):  # fmt: skip
        server.client().put_object(Bucket=bucket, Key=key, Body=b"x")


def client_of(server: IamServer, role: str, *, secret: str | None = None) -> Any:
    key, own_secret = server.keys[role]
    return boto3.client(
        "s3",
        endpoint_url=server.endpoint_url,
        aws_access_key_id=key,
        aws_secret_access_key=secret or own_secret,
        region_name=REGION,
        config=Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}),
    )


@pytest.mark.parametrize("role", S3_ROLES)
def test_a_role_may_do_what_its_work_needs_and_nothing_else(
    role: str, server: IamServer, objects: None
) -> None:
    store = client_of(server, role)
    done = set()
    for name, request in REQUESTS.items():
        try:
            request(store)
            done.add(name)
        except ClientError as error:
            if error.response["Error"]["Code"] != "AccessDenied":
                raise
    assert done == MAY[role]


def test_a_gateway_is_ready_with_the_rights_of_a_publisher(server: IamServer) -> None:
    home = S3Uri(OWN, "maskq")
    check_store(s3.Connection(lambda: client_of(server, "publisher")), home)
    with pytest.raises(StoreRefused):
        check_store(s3.Connection(lambda: client_of(server, "webhooks")), home)


def test_a_key_with_another_s_secret_is_refused(server: IamServer, objects: None) -> None:
    store = client_of(server, "worker", secret=server.keys["reader"][1])
    with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
        get(OWN, UPLOAD)(store)


def test_what_is_missing_looks_forbidden_to_whom_may_not_list(server: IamServer) -> None:
    """As on AWS; so a worker may list: it must tell a job without a result from one it may not read."""
    for role, code in (("reader", "AccessDenied"), ("worker", "NoSuchKey")):
        with pytest.raises(ClientError, match=code):
            get(OWN, "maskq/nowhere")(client_of(server, role))


@pytest.mark.parametrize("file", sorted(POLICIES.glob("*.json")), ids=lambda file: file.stem)
def test_a_policy_names_no_wildcard_action_or_resource(file: Path) -> None:
    for statement in json.loads(file.read_text())["Statement"]:
        assert statement["Effect"] == "Allow"
        actions = statement["Action"]
        for action in [actions] if isinstance(actions, str) else actions:
            assert "*" not in action
        resources = statement["Resource"]
        for resource in [resources] if isinstance(resources, str) else resources:
            assert resource.partition(":::")[2].partition("/")[0] != "*"
            assert resource != "*"
