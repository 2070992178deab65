"""What a worker finds out about its object store before it takes a job."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image
from support.s3_front import Rule, S3Front
from support.waiting import until

from maskq import Client
from maskq_standalone.children.child import ChildError
from maskq_standalone.stack import Stack

MARK = r"\.maskq-conditional-write"


@pytest.fixture(scope="module")
def small_stack(smallest_model: Path) -> Iterator[Stack]:
    with Stack(workers=0, pinned=True, model=str(smallest_model)) as running:
        yield running


@pytest.fixture
def front(small_stack: Stack, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Front]:
    # The front signs some requests anew, with a key that may do all.
    for name, value in (small_stack.environment | small_stack.s3.environment).items():
        monkeypatch.setenv(name, value)
    with S3Front(small_stack.s3.port) as front:
        yield front


def start(stack: Stack, front: S3Front) -> None:
    stack.start_worker({"MASKQ_S3_ENDPOINT_URL": front.url})


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        (Rule(f"PUT .*{MARK}", do="unconditional"), "conditional writes"),
        (Rule(f"PUT .*{MARK}", status=501, code="NotImplemented"), "conditional writes"),
        (Rule(f"PUT .*{MARK}", status=403, code="AccessDenied"), "AccessDenied"),
    ],
    ids=["ignored", "unknown", "denied"],
)
def test_a_store_that_cannot_commit_ends_the_start_with_78_and_one_line(
    small_stack: Stack, front: S3Front, rule: Rule, told: str
) -> None:
    front.rules = [rule]
    with pytest.raises(ChildError) as raised:
        start(small_stack, front)
    assert "code 78" in str(raised.value)
    assert "maskq worker: the object store" in str(raised.value)  # its log's last line
    assert told in str(raised.value)
    log = (small_stack.directory / "logs" / f"worker-{small_stack._numbered}.log").read_text()
    assert log.count("maskq worker: ") == 1
    assert "Traceback" not in log


@pytest.mark.parametrize(
    "rule",
    [
        Rule("", status=503, code="ServiceUnavailable"),
        Rule("", status=400, code="ExpiredToken"),
    ],
    ids=lambda rule: rule.code,
)
def test_a_worker_that_starts_while_the_store_is_away_waits_for_it(
    small_stack: Stack, front: S3Front, rule: Rule
) -> None:
    front.rules = [rule]
    with ThreadPoolExecutor(1) as pool:
        starting = pool.submit(start, small_stack, front)
        # The first tries, and those of who waits
        until(lambda: front.asked("") >= 6 or starting.done())
        assert not starting.done()
        front.rules = []
        starting.result(60)
    worker = small_stack.workers.pop()
    with Client.from_env() as client:
        client.segment(Image.new("RGB", (60, 40), "teal"), timeout=30)
    log = worker.child.log_tail()
    worker.child.stop(30)
    if rule.code == "ExpiredToken":
        assert "ERROR" in log
        assert "no job is claimed until they are valid" in log
