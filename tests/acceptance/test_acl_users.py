"""Each process with the Redis user and the S3 policy of its role (docs/least-privilege.md): everything
works, and no more does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from acceptance.conftest import LEASE_S
from PIL import Image
from support import acl
from support.acl_stack import AclStack

from maskq import Client, JobStatus, MaskqError
from maskq.contract import FailureCode
from maskq.contract.ids import new_token
from maskq.errors import StoreUnavailable
from maskq.ledger import Ledger, calls

IMAGE = Image.new("RGB", (64, 48), "teal")


@pytest.fixture(scope="module")
def stack(smallest_model: Path) -> Iterator[AclStack]:
    env = {"MASKQ_LEASE_S": str(LEASE_S), "MASKQ_WEBHOOK_ALLOWED_HOSTS": "127.0.0.1"}
    with AclStack(
        workers=1, pinned=True, webhooks=True, model=str(smallest_model), env=env
    ) as running:
        yield running


@pytest.fixture
def reader(stack: AclStack, client: Client, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    client.submit(IMAGE).wait(timeout=60)  # the publisher connects with its own key
    for name, value in stack.as_user("reader").items():
        monkeypatch.setenv(name, value)
    with Client.from_env() as connected:
        yield connected


def test_a_publisher_can_do_all_that_a_client_can(stack: AclStack, client: Client) -> None:
    with redis.Redis.from_url(stack.redis.url) as admin:
        admin.execute_command("ACL", "LOG", "RESET")
        job = client.submit(IMAGE, idempotency_key="one", tenant="ada", durable=True)
        job.wait(timeout=60)
        batch = client.submit_many([IMAGE] * 5)
        ended = list(batch.as_completed(timeout=60))
        assert Counter(one.status for one in ended) == {JobStatus.SUCCEEDED: 5}
        failed = client.submit("s3://maskq/nowhere.jpg")
        with pytest.raises(MaskqError):
            failed.wait(timeout=60)
        assert client.retry(failed.id).id != failed.id
        assert {record.id for record in client.list(tenant="ada").records} == {job.id}
        low = client.submit(IMAGE, priority="low")
        low.cancel()
        assert list(client.events(since="0", types=["job.succeeded"], idle=0.3))
        assert list(client.events(since="0", group="billing", idle=0.3))
        assert client.delete_event_group("billing")
        assert client.deliveries() == []
        job.delete()
        assert admin.execute_command("ACL", "LOG") == []


@pytest.mark.direct_only("an API key with the scope read is tested in tests/integration/gateway")
def test_a_reader_sees_and_waits_and_changes_nothing(client: Client, reader: Client) -> None:
    job = client.submit(IMAGE)
    seen = reader.get(job.id)
    assert seen.wait(timeout=60).mask().size == IMAGE.size
    assert reader.list(limit=1).records
    assert list(reader.events(since="0", idle=0.3))
    for change in (lambda: reader.submit(IMAGE), lambda: seen.delete()):
        with pytest.raises(
            StoreUnavailable, match=r"does not allow user 'reader'|user/reader is not authorized"
        ) as refused:
            change()
        assert refused.value.code is FailureCode.ACCESS_DENIED
    assert reader.get(job.id).status is JobStatus.SUCCEEDED


def test_a_killed_worker_s_jobs_run_elsewhere(stack: AclStack, client: Client) -> None:
    """The sweeper needs no INFO."""
    jobs = client.submit_many([IMAGE] * 200)
    os.kill(stack.workers[0].pid, signal.SIGKILL)
    stack.workers[0].child.wait_ended(10)
    stack.start_workers(1)
    ended = list(jobs.as_completed(timeout=60))
    assert Counter(one.status for one in ended) == {JobStatus.SUCCEEDED: 200}


def test_a_webhook_is_delivered(stack: AclStack, client: Client) -> None:
    listening = subprocess.Popen(
        [
            str(Path(sys.executable).with_name("maskq")),
            *["webhooks", "listen", "--port", "0", "--count", "1"],
        ],
        env={**os.environ, **stack.environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert listening.stderr is not None
        job = client.submit(IMAGE, webhook=listening.stderr.readline().split()[-1])
        out, err = listening.communicate(timeout=60)
    finally:
        listening.kill()
    assert job.id in out, err


CALLER = """
import os
from celery import Celery
app = Celery("shop", broker=os.environ["URL"], backend=os.environ["URL"])
sent = app.send_task("maskq.segment", args=[{"image_uri": os.environ["IMAGE"]}], queue="maskq")
print(sent.get(timeout=60)["width"])
"""


def test_a_raw_celery_caller_gets_its_result(stack: AclStack, client: Client) -> None:
    image = client.submit(IMAGE).refresh().request.image_uri
    said = subprocess.run(
        [sys.executable, "-c", CALLER],
        env={**os.environ, "URL": acl.url_of("celery", stack.redis.url), "IMAGE": image},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert said.stdout.strip() == "64", said.stderr


def test_a_worker_whose_user_lacks_a_right_ends_with_78_and_one_line(stack: AclStack) -> None:
    """Where it was restarted for ever."""
    with redis.Redis.from_url(stack.redis.url) as admin:
        admin.execute_command("ACL", "SETUSER", "lame", "reset", *acl.users()["worker"], "-brpop")
        admin.execute_command("ACL", "SETUSER", "lame", ">lame")
    for module in ("maskq_worker", "maskq_worker.webhooks"):
        user = "lame" if module == "maskq_worker" else "reader"
        said = subprocess.run(
            [sys.executable, "-m", module],
            env={**os.environ, **stack.environment, **stack.as_user(user)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert said.returncode == 78, said.stderr
        assert said.stderr.count("\n") == 1, said.stderr
        assert f"does not allow user '{user}' what a" in said.stderr


def test_what_the_separation_is_worth(stack: AclStack, client: Client) -> None:
    """Redis' ACL sees keys and commands, not which script moves them: a publisher could also claim."""
    url = stack.as_user("publisher")["MASKQ_REDIS_URL"]
    ledger, other = Ledger(url, "maskq"), Ledger(url, "other")
    job = client.submit(IMAGE, output_prefix=None)
    job.wait(timeout=60)
    claim = calls.claim("x", new_token(), owner="me", lease_s=1, with_ticket=True)
    with pytest.raises(StoreUnavailable, match="does not allow"):  # it takes no ticket off the list
        ledger.run(claim)
    with pytest.raises(
        StoreUnavailable, match="does not allow"
    ):  # nor does it see what is another's
        other.run(calls.get(job.id))
    ledger.run(calls.renew([(job.id, "token")], 1.0))  # but what keys allow, it may
    ledger.close()
    other.close()
