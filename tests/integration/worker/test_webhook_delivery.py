"""From the end of a job to its receiver: real Redis, real HTTP, verified by the standard's library."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from standardwebhooks import Webhook
from support.waiting import until

from maskq import Client, InvalidRequest, JobNotFound, webhooks
from maskq.contract import FailureCode, JobFailure
from maskq.contract.webhooks import DeliveryState
from maskq.ledger import Ledger, calls
from maskq_worker.webhooks import Deliverer, WebhookSettings

IMAGE = "s3://photos/a.png"
WAIT_S = 20.0


class Receiver:
    """Notes every delivery and answers with the next of `answers`, then with 200."""

    def __init__(self) -> None:
        self.received: list[tuple[dict[str, str], bytes]] = []
        self.answers: list[tuple[int, dict[str, str]]] = []
        self.let_go = threading.Event()
        self.let_go.set()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                outer.received.append((headers, body))
                outer.let_go.wait(WAIT_S)
                status, extra = outer.answers.pop(0) if outer.answers else (200, {})
                self.send_response(status)
                for name, value in {"Content-Length": "0", **extra}.items():
                    self.send_header(name, value)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port: int = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/hook"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def close(self) -> None:
        self.let_go.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


SECRET = webhooks.new_secret()


class Service:
    def __init__(self, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        self.client = client
        self._patch = monkeypatch
        self.ledger = Ledger.of(client.settings)
        self.ledger.run(calls.register_model("demo", {}))
        self._deliverers: list[Deliverer] = []

    def deliverer(self, **settings: str) -> Deliverer:
        defaults = {
            "webhook_secret": SECRET,
            "webhook_allowed_hosts": "127.0.0.1",
            "webhook_retries_s": "0.05,0.05,0.05,0.05",
        }
        made = Deliverer(self.ledger, WebhookSettings.load(**{**defaults, **settings}))
        self._deliverers.append(made)
        return made

    def deliver_until(self, deliverer: Deliverer, done: Callable[[], bool]) -> None:
        def delivered() -> bool:
            if not done():
                deliverer.deliver_due()
            return done()

        until(delivered, within_s=WAIT_S, every_s=0.01, otherwise=self.client.deliveries)

    def states(self, subject: str) -> list[DeliveryState]:
        return [one.state for one in self.client.deliveries(subject)]

    def settle(self, deliverer: Deliverer, subject: str) -> None:
        self.deliver_until(
            deliverer,
            lambda: DeliveryState.PENDING not in self.states(subject),
        )

    def close(self) -> None:
        for one in self._deliverers:
            one.close()
        self.ledger.close()


@pytest.fixture
def service(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    with Client.from_env() as client:
        made = Service(client, monkeypatch)
        yield made
        made.close()


def test_the_receiver_verifies_the_very_bytes_of_the_event(
    service: Service, receiver: Receiver
) -> None:
    job = service.client.submit(IMAGE, webhook=receiver.url, metadata={"name": "ü"})
    job.cancel()
    service.settle(service.deliverer(), job.id)

    ((headers, body),) = receiver.received
    assert Webhook(SECRET).verify(body.decode(), headers)["data"]["metadata"] == {"name": "ü"}
    event = webhooks.verify(headers, body, secret=SECRET)
    assert (event.subject, event.type) == (job.id, "maskq.job.canceled")
    stream = service.ledger.redis.xrange(f"{service.client.key_prefix}:events")
    assert body.decode() in [fields["event"] for _, fields in stream]
    (delivery,) = service.client.deliveries(job.id)
    assert (delivery.state, delivery.attempts) == (DeliveryState.DELIVERED, 1)
    assert [attempt.status for attempt in delivery.log] == [200]


def test_only_what_was_asked_for_is_told(service: Service, receiver: Receiver) -> None:
    told = service.client.submit(
        IMAGE, webhook=receiver.url, webhook_events=["job.queued", "job.canceled"]
    )
    silent = service.client.submit(IMAGE, webhook=receiver.url, webhook_events=["job.succeeded"])
    none = service.client.submit(IMAGE)
    for job in (told, silent, none):
        job.cancel()
    service.settle(service.deliverer(), told.id)
    types = [json.loads(body)["type"] for _, body in receiver.received]
    assert sorted(types) == ["maskq.job.canceled", "maskq.job.queued"]
    assert service.client.deliveries(silent.id) == service.client.deliveries(none.id) == []


def test_a_deployment_s_own_receiver(
    environment: dict[str, str], receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MASKQ_WEBHOOK_URL", receiver.url)
    with Client.from_env() as client:
        service = Service(client, monkeypatch)
        job = client.submit(IMAGE)
        job.cancel()
        service.settle(service.deliverer(), job.id)
        service.close()
    assert len(receiver.received) == 1


def test_a_batch_is_told_of_once(service: Service, receiver: Receiver) -> None:
    batch = service.client.submit_many([IMAGE] * 3, batch_webhook=receiver.url)
    batch.cancel()
    service.settle(service.deliverer(), batch.id)
    ((_, body),) = receiver.received
    assert json.loads(body)["type"] == "maskq.batch.completed"
    assert json.loads(body)["data"]["canceled"] == 3


def test_who_is_down_for_three_tries_hears_of_it_then(service: Service, receiver: Receiver) -> None:
    receiver.answers = [(500, {}), (302, {"Location": "/elsewhere"}), (503, {})]
    job = service.client.submit(IMAGE, webhook=receiver.url)
    job.cancel()
    service.settle(service.deliverer(), job.id)
    (delivery,) = service.client.deliveries(job.id)
    assert [attempt.status for attempt in delivery.log] == [500, 302, 503, 200]
    assert delivery.state is DeliveryState.DELIVERED
    ids = {headers["webhook-id"] for headers, _ in receiver.received}
    assert ids == {f"{job.id}:canceled"}
    assert len({body for _, body in receiver.received}) == 1


def test_after_the_last_retry_it_has_failed_and_can_be_sent_again(
    service: Service, receiver: Receiver
) -> None:
    receiver.answers = [(500, {})] * 5
    job = service.client.submit(IMAGE, webhook=receiver.url)
    job.cancel()
    deliverer = service.deliverer()
    service.settle(deliverer, job.id)
    (delivery,) = service.client.deliveries(job.id, state="failed")
    assert delivery.attempts == 5

    service.client.redeliver(delivery.id)
    service.settle(deliverer, job.id)
    assert service.states(job.id) == [DeliveryState.DELIVERED]
    with pytest.raises(JobNotFound, match="delivery"):
        service.client.redeliver("nobody:succeeded")


def test_gone_is_final(service: Service, receiver: Receiver) -> None:
    receiver.answers = [(410, {})]
    job = service.client.submit(IMAGE, webhook=receiver.url)
    job.cancel()
    service.settle(service.deliverer(), job.id)
    (delivery,) = service.client.deliveries(job.id)
    assert (delivery.state, delivery.attempts) == (DeliveryState.FAILED, 1)


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_honoured(service: Service, receiver: Receiver, status: int) -> None:
    receiver.answers = [(status, {"Retry-After": "100"})]
    job = service.client.submit(IMAGE, webhook=receiver.url)
    job.cancel()
    deliverer = service.deliverer()
    service.deliver_until(deliverer, lambda: service.client.deliveries(job.id)[0].attempts == 1)
    (delivery,) = service.client.deliveries(job.id)
    assert delivery.next_ms is not None
    assert 90 < delivery.next_ms / 1000 - time.time() < 130


@pytest.mark.parametrize(
    "value",
    [
        "99999999999",
        "Fri, 31 Dec 99999999999 23:59:59 GMT",
        "Fri, 31 Dec 9999 23:59:59 -9999",
        "-1",
        "1e999",
        "soon",
        "\xb2",
    ],
)
def test_a_strange_retry_after_is_one_failed_attempt_like_any_other(
    service: Service, receiver: Receiver, value: str
) -> None:
    receiver.answers = [(503, {"Retry-After": value})]
    job = service.client.submit(IMAGE, webhook=receiver.url)
    job.cancel()
    deliverer = service.deliverer()
    service.deliver_until(deliverer, lambda: service.client.deliveries(job.id)[0].attempts > 0)
    (delivery,) = service.client.deliveries(job.id)
    assert delivery.log[0].status == 503
    assert (delivery.next_ms or 0) / 1000 - time.time() < 86_500


def test_any_fault_of_the_sender_counts_as_an_attempt(
    service: Service, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fault(*_: object, **__: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("maskq.safe_http.post", fault)
    job = service.client.submit(IMAGE, webhook=receiver.url)
    job.cancel()
    service.settle(service.deliverer(), job.id)
    (delivery,) = service.client.deliveries(job.id)
    assert (delivery.state, delivery.attempts) == (DeliveryState.FAILED, 5)
    assert "RuntimeError" in (delivery.log[0].error or "")


def test_delete_removes_a_job_s_deliveries(service: Service, receiver: Receiver) -> None:
    every = ["job.queued", "job.running", "job.canceled"]
    job = service.client.submit(IMAGE, webhook=receiver.url, webhook_events=every)
    prefix = service.client.key_prefix
    # Given deliveries of two attempts, posted, and one of its end, not posted
    failure = JobFailure(code=FailureCode.INTERNAL, message="again")
    for token in ("first", "second"):
        service.ledger.run(calls.claim("demo", token, owner="o", lease_s=9))
        service.ledger.run(calls.release(job.id, token, failure, charged=False, delay_s=0))
    kept = service.client.submit(IMAGE, webhook=receiver.url, webhook_events=every)
    service.settle(service.deliverer(), job.id)
    job.cancel()
    assert len(service.states(job.id)) == 6

    job.delete()

    assert service.states(job.id) == []
    assert service.states(kept.id) != []
    left = [name for name in service.ledger.redis.scan_iter(f"{prefix}:*") if job.id in name]
    assert left == []
    for listed in ("deliveries", "deliveries:due"):
        members = service.ledger.redis.zrange(f"{prefix}:{listed}", 0, -1)
        assert not [one for one in members if job.id in one]


def test_a_private_receiver_that_is_not_meant_is_never_contacted(
    service: Service, receiver: Receiver
) -> None:
    job = service.client.submit(IMAGE, webhook=receiver.url.replace("http:", "https:"))
    job.cancel()
    service.settle(service.deliverer(webhook_allowed_hosts=""), job.id)
    (delivery,) = service.client.deliveries(job.id)
    assert delivery.state is DeliveryState.FAILED
    assert delivery.log[0].error is not None
    assert "not called" in delivery.log[0].error
    assert receiver.received == []


@pytest.mark.parametrize("url", ["example.com/hook", "https://[::1/hook", "https://a:x/"])
def test_a_url_that_is_none_fails_and_holds_up_nobody(
    service: Service, receiver: Receiver, url: str
) -> None:
    # Given a row as a client of before wrote it, whose settings were not looked at
    odd, sound = (service.client.submit(IMAGE, webhook=receiver.url) for _ in range(2))
    odd.cancel()
    (row,) = service.client.deliveries(odd.id)
    name = f"{service.client.key_prefix}:delivery:{row.id}"
    service.ledger.redis.hset(name, "url", url)
    sound.cancel()

    service.settle(service.deliverer(), sound.id)
    service.settle(service.deliverer(), odd.id)

    assert service.states(sound.id) == [DeliveryState.DELIVERED]
    assert service.states(odd.id) == [DeliveryState.FAILED]


def test_a_slow_receiver_holds_up_nobody_else(service: Service, receiver: Receiver) -> None:
    slow = Receiver()
    slow.let_go.clear()
    try:
        for _ in range(40):
            service.client.submit(IMAGE, webhook=slow.url).cancel()
        job = service.client.submit(IMAGE, webhook=receiver.url)
        job.cancel()
        deliverer = service.deliverer()
        service.settle(deliverer, job.id)
        assert len(receiver.received) == 1
        assert len(slow.received) <= 8
        slow.let_go.set()
    finally:
        slow.close()


def test_what_a_dead_deliverer_had_in_hand_is_due_again(
    service: Service, receiver: Receiver
) -> None:
    job = service.client.submit(IMAGE, webhook=receiver.url)
    job.cancel()
    (due,) = service.ledger.run(calls.due_deliveries(cap=9, hold_s=60))
    assert service.ledger.run(calls.due_deliveries(cap=9, hold_s=60)) == []
    assert due.id == f"{job.id}:canceled"
    # When the 60 s pass
    name = f"{service.client.key_prefix}:deliveries:due"
    service.ledger.redis.zadd(name, {due.id: -60_000}, xx=True, incr=True)
    service.settle(service.deliverer(), job.id)
    assert len(receiver.received) == 1


@pytest.mark.parametrize(
    "url",
    ["ftp://a/b", "hook", "https://", "https://u:p@a/", "https://a:x/", "https://" + "a" * 3000],
)
def test_what_is_no_url_is_refused_at_submit(service: Service, url: str) -> None:
    with pytest.raises(InvalidRequest, match="webhook"):
        service.client.submit(IMAGE, webhook=url)
    with pytest.raises(InvalidRequest, match="webhook"):
        service.client.submit_many([IMAGE], batch_webhook=url)


def test_without_a_secret_nothing_is_delivered(service: Service) -> None:
    with pytest.raises(InvalidRequest, match="MASKQ_WEBHOOK_SECRET"):
        service.deliverer(webhook_secret="")
