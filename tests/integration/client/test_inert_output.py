"""Every command of `maskq`, while all that it reads is hostile: records, events, answers, files.

A command that is new has to be named here before this passes.
"""

from __future__ import annotations

import http.server
import io
import json
import shlex
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
import typer.main
from support.answering import answering
from support.damaged import damaged
from support.hostile import HOSTILE, SECRET, TEXT, URL, Receiver, harmless, serving

from maskq import Client, webhooks
from maskq.cli import build, main
from maskq.contract import FailureCode, JobFailure, JobResult, JobStatus, Output
from maskq.contract.ids import new_token
from maskq.contract.models import ServingWorker
from maskq.ledger import Ledger, calls, keys
from maskq.ledger.calls import models
from maskq.settings import Settings
from maskq_worker.webhooks import Deliverer, WebhookSettings

MODEL = f"model {HOSTILE}"[:200].replace("\udce9", "")


class Maskq:
    """Runs the command in this process, for its start is what takes time."""

    def __init__(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self._capsys = capsys
        self._patch = monkeypatch

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        """Exit code, stdout and stderr, each found to be harmless."""
        self._patch.setattr(sys, "argv", ["maskq", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        out, err = self._capsys.readouterr()
        harmless(out)
        harmless(err)
        assert "Traceback" not in err
        return int(end.value.code or 0), out, err


@pytest.fixture
def maskq(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Maskq]:
    hooks = sys.excepthook, sys.unraisablehook, threading.excepthook
    yield Maskq(capsys, monkeypatch)
    sys.excepthook, sys.unraisablehook, threading.excepthook = hooks


class Refusing(http.server.BaseHTTPRequestHandler):
    """An object store that refuses everything in words of its own choice."""

    def do_GET(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self.rfile.read(length)
        # XML allows no other control characters than these.
        words = "a&#xD;&#xA;ERROR forged\u202e\u200b\x9b31m\u2028" + URL
        body = f"<Error><Code>Access{words}</Code><Message>{words}</Message></Error>".encode()
        self.send_response(403)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_PUT = do_POST = do_HEAD = do_DELETE = do_GET

    def log_message(self, *_: object) -> None:
        pass


class World:
    """One job of each end, an event, a model and a delivery, all of them with hostile text."""

    def __init__(self, client: Client, ledger: Ledger) -> None:
        self.client = client
        self._ledger = ledger
        self._prefix = client.key_prefix
        worker = ServingWorker(owner=TEXT, model=MODEL, revision=TEXT, labels=3, since_ms=1)
        ledger.run(models.register(worker))
        with serving(Receiver) as url:
            self.failed = self._claimed(url)
            failure = JobFailure(code=FailureCode.INVALID_IMAGE, message=f"{TEXT} {URL}")
            ledger.run(calls.fail(self.failed, self._token, JobStatus.FAILED, failure))
            self._deliver()
        self.queued = self._submitted(None)
        self.succeeded = self._claimed(None)
        ledger.run(calls.succeed(self.succeeded, self._token, self._result()))
        event = {
            "id": TEXT,
            "source": TEXT,
            "type": TEXT,
            "subject": TEXT,
            "time": "2026-01-01T00:00:00Z",
        }
        ledger.redis.xadd(keys.events().within(self._prefix), {"event": json.dumps(event)})

    def _submitted(self, webhook: str | None) -> str:
        return self.client.submit(
            f"s3://photos/{TEXT}.png", model=MODEL, metadata={TEXT: TEXT}, webhook=webhook
        ).id

    def _claimed(self, webhook: str | None) -> str:
        job_id, self._token = self._submitted(webhook), new_token()
        claimed = self._ledger.run(
            calls.claim(MODEL, self._token, owner=TEXT, lease_s=100, job_id=job_id)
        )
        assert claimed.job_id == job_id
        return job_id

    def _result(self) -> JobResult:
        record = self.client.get(self.succeeded).refresh()
        place = self.client.session.layout.of(record).output(self._token, Output.MASK)
        mask = PIL.Image.new("P", (4, 3))
        mask.putpalette([0, 0, 0])
        png = io.BytesIO()
        mask.save(png, "PNG")
        self.client.objects.put(place, png.getvalue(), "image/png")
        return JobResult(
            width=4,
            height=3,
            model=MODEL,
            model_revision=TEXT,
            outputs={Output.MASK: str(place)},
            labels={0: TEXT},
            notes=[TEXT],
            timings_ms={TEXT: 1.0},
        )

    def _deliver(self) -> None:
        settings = WebhookSettings.load(
            webhook_secret=webhooks.new_secret(), webhook_allowed_hosts="127.0.0.1"
        )
        deliverer = Deliverer(self._ledger, settings)
        end = time.monotonic() + 20
        while not (found := self.client.deliveries(self.failed)) or not found[0].log:
            assert time.monotonic() < end
            deliverer.deliver_due()
            time.sleep(0.01)
        deliverer.close()
        self.delivery = found[0].id


@pytest.fixture
def world(environment: dict[str, str]) -> Iterator[World]:
    ledger = Ledger.of(Settings.load())
    with Client.from_env() as client:
        yield World(client, ledger)
    ledger.close()


# --- every command ------------------------------------------------------------------------------------


def commands(command: Any = None, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    command = command or typer.main.get_command(build())
    if not hasattr(command, "commands"):
        yield path
        return
    for name, inner in command.commands.items():
        yield from commands(inner, (*path, name))


# What each is called with. Those that serve until they are stopped end here by a setting that is wrong.
ARGUMENTS: dict[tuple[str, ...], list[list[str]]] = {
    ("submit",): [
        ["{t}"], ["{b}"], ["s3://photos/{t}", "--tenant", "{t}"], ["{u}"], ["{u}?sig={s}"], ["s3://{t}/x"],
        ["s3://photos/a", "--metadata", "{t}"], ["s3://photos/a", "--model", "{t}"],
        ["s3://photos/a", "--output", "{t}"], ["s3://photos/a", "--output-prefix", "{t}"],
        ["s3://photos/{t}", "--model", "{m}", "--wait", "--timeout", "0"],
        ["--recursive", "{list}", "--model", "{m}", "--manifest", "{manifest}"],
        ["--recursive", "{t}"], ["--recursive", "s3://{t}/"],
        ["--recursive", "{folder}", "--model", "{t}"],
        ["--{t}"],
    ],
    ("status",): [["{t}"], ["{failed}"], ["{succeeded}"], ["{succeeded}", "{t}"]],
    ("wait",): [["{t}"], ["{failed}", "{succeeded}"], ["{queued}", "--timeout", "0"]],
    ("cancel",): [["{t}"], ["{failed}"]],
    ("retry",): [["{t}"], ["--code", "{t}"], ["{failed}"]],
    ("delete",): [["{t}"]],
    ("list",): [[], ["--status", "{t}"], ["--cursor", "{t}"], ["--tenant", "{t}"], ["--batch", "{t}"]],
    ("events",): [["--since", "0", "--idle", "0.05"], ["--since", "{t}", "--idle", "0.05"],
                  ["--type", "{t}"], ["--group", "{t}", "--since", "0", "--idle", "0.05"]],
    ("keys", "create"): [["--name", "{t}"], ["--tenant", "{t}"], ["--expires", "{t}"]],
    ("keys", "list"): [[]],
    ("keys", "revoke"): [["{t}"]],
    ("models", "list"): [[]],
    ("models", "default"): [["{t}"], ["{m}"], []],
    ("models", "retire"): [["{t}"], ["{m}"]],
    ("webhooks", "list"): [[], ["{failed}"], ["{t}"], ["--state", "{t}"]],
    ("webhooks", "redeliver"): [["{t}"], ["{delivery}"]],
    ("webhooks", "secret"): [["{t}"]],
    ("webhooks", "listen"): [["--port", "{t}"]],
    ("view",): [["{t}"], ["{succeeded}", "--out", "{page}"],
                ["{succeeded}", "--out", "{folder}/{t}/x"]],
    ("download",): [["{t}", "--out", "{folder}/out"], ["--batch", "{t}", "--out", "{folder}/out"],
                    ["{succeeded}", "--out", "{folder}/{t}/x"]],
    ("why",): [["{t}"], ["{failed}"]],
    ("workers",): [[]],
    ("top",): [["--once"]],
    ("info",): [[]],
    ("doctor",): [["--role", "client"], ["--role", "{t}"]],
    ("metrics",): [["--once"], ["--host", "{t}", "--once"]],
    ("shadow", "mirror"): [["--since", "{t}", "--idle", "0.05"]],
    ("shadow", "report"): [["{t}"], []],
    ("compare",): [["{t}", "{m}", "{folder}"], ["{m}", "{m}", "{t}"], ["{t}", "{m}", "{list}"]],
    ("verify",): [["{t}"], ["{succeeded}"]],
    ("tenants", "list"): [[]],
    ("tenants", "show"): [["{t}"]],
    ("tenants", "set"): [["{t}", "--weight", "2"], ["acme", "--weight", "{t}"]],
    ("tenants", "unset"): [["{t}"]],
    ("bench",): [["{t}"]],
    ("gateway",): [["--rules", "{t}"], ["--rules", "{rules}"]],
    ("trigger", "sqs"): [["--rules", "{t}"], ["--rules", "{good}", "--queue-url", "{u}"]],
    ("trigger", "check"): [["{t}"], ["{rules}"], ["{good}"]],
    ("worker",): [["--role", "{t}"], ["--gpus", "{t}"]],
    ("weights", "pull"): [["{t}"]],
    ("weights", "convert"): [["{t}"]],
    ("weights", "quantize"): [["{t}", "--images", "{t}"]],
    ("weights", "calibrate"): [["{t}", "--dtype", "{t}", "--images", "{t}"]],
    ("up",): [["--env-file", "{t}/x"], ["--rules", "{rules}"]],
    ("demo",): [["{b}"]],
}  # fmt: skip


RULES = """
[[rule]]
name = {name}
bucket = "photos"
prefix = {name}
output_prefix = "s3://masks/out"
webhook = {webhook}
"""


@pytest.fixture
def names(tmp_path: Path) -> dict[str, str]:
    """What stands in braces in ARGUMENTS, but for the ids of the world."""
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / f"{HOSTILE}.png").write_bytes(damaged("png"))
    listed = tmp_path / "list"
    listed.write_text(f"s3://photos/{TEXT}.png\n{URL}.png\n{TEXT}\n", encoding="utf-8")
    rules = {"rules": "no", "good": "https://h.example/x"}
    for name, webhook in rules.items():
        text = RULES.format(name=json.dumps(TEXT[:90]), webhook=json.dumps(webhook))
        (tmp_path / name).write_text(text, encoding="utf-8")
    return {
        "t": TEXT,
        "b": HOSTILE,
        "u": URL,
        "s": SECRET,
        "m": MODEL,
        "list": str(listed),
        "manifest": str(tmp_path / "manifest.jsonl"),
        "folder": str(folder),
        "page": str(tmp_path / "page.html"),
        **{name: str(tmp_path / name) for name in rules},
    }


def test_each_command_is_tried() -> None:
    assert set(commands()) == set(ARGUMENTS)


def test_whatever_a_command_reads_it_prints_harmlessly(
    world: World,
    maskq: Maskq,
    names: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("MASKQ_WEBHOOK_SECRET", webhooks.new_secret())
    monkeypatch.chdir(tmp_path)
    ids = {n: getattr(world, n) for n in ("failed", "succeeded", "queued", "delivery")}
    said: dict[tuple[str, ...], tuple[int, str, str]] = {}
    for path, each in ARGUMENTS.items():
        for arguments in each:
            words = [word.format(**names, **ids) for word in arguments]
            said[(*path, *arguments)] = maskq(*path, *words)
    # And it is told all the same.
    assert r"ERROR forged\u202e" in said["status", "{failed}"][1]
    assert r"ERROR forged\u202e" in said["webhooks", "list", "{failed}"][1]
    assert r"ERROR forged\u202e" in said["models", "list"][1]
    assert r"ERROR forged\u202e" in said["events", "--since", "0", "--idle", "0.05"][1]


def test_documents_hold_the_text_whole(world: World, maskq: Maskq) -> None:
    (status,) = json.loads(maskq("status", world.failed, "--json")[1])["jobs"]
    assert status["request"]["metadata"] == {TEXT: TEXT}
    assert status["request"]["image_uri"] == f"s3://photos/{TEXT}.png"
    assert status["error"]["message"] == f"{TEXT} https://…@h.example/x"
    listed = json.loads(maskq("list", "--json")[1])["jobs"]
    assert status in listed
    events = maskq("events", "--since", "0", "--idle", "0.05", "--json")[1].splitlines()
    assert [event["type"] for event in map(json.loads, events)][-1] == TEXT
    (delivery,) = json.loads(maskq("webhooks", "list", world.failed, "--json")[1])["deliveries"]
    assert delivery["log"][0]["error"] == TEXT
    models = json.loads(maskq("models", "list", "--json")[1])["models"]
    assert MODEL in [model["name"] for model in models]


def test_a_page_shows_what_would_be_hidden(
    world: World, maskq: Maskq, names: dict[str, str]
) -> None:
    ran = maskq("view", world.succeeded, "--out", names["page"])
    assert ran[0] == 0, ran
    harmless(Path(names["page"]).read_text(encoding="utf-8"))


def test_a_manifest_holds_no_password(world: World, maskq: Maskq, names: dict[str, str]) -> None:
    maskq("submit", "--recursive", names["list"], "--model", MODEL, "--manifest", names["manifest"])
    lines = Path(names["manifest"]).read_text(encoding="ascii").splitlines()
    harmless("\n".join(lines))
    images = [json.loads(line).get("image", "") for line in lines]
    assert f"s3://photos/{TEXT.split(chr(13))[0]}" in images
    assert any(image.startswith("https://…@h.example/x.png") for image in images)


# --- the words of servers -----------------------------------------------------------------------------


def test_the_words_of_redis_are_harmless(
    maskq: Maskq,
    names: dict[str, str],
    environment: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = TEXT.replace("\r", "").replace("\n", "")
    answer = f"-ERR {words} {URL}, with args beginning with: '{SECRET}'\r\n".encode()
    ids = dict.fromkeys(("failed", "succeeded", "queued", "delivery"), "019a")
    commands = [
        b"EVAL",
        b"HGET",
        b"ZRE",
        b"HSET",
        b"XREAD",
        b"XINFO",
        b"GET",
        b"HM",
        b"SCRIPT",
        b"XGROUP",
    ]
    with answering(dict.fromkeys(commands, answer)) as port:
        monkeypatch.setenv("MASKQ_REDIS_URL", f"redis://:{SECRET}@127.0.0.1:{port}/0")
        for path in (
            ("submit",), ("status",), ("wait",), ("cancel",), ("retry",), ("delete",), ("list",),
            ("events",), ("models", "list"), ("models", "default"), ("webhooks", "list"),
            ("webhooks", "redeliver"), ("view",),
        ):  # fmt: skip
            words = [word.format(**names, **ids) for word in ARGUMENTS[path][-1]]
            code, _, _ = maskq(*path, *words)
            assert code, path


def test_the_words_of_the_object_store_are_harmless(
    world: World,
    maskq: Maskq,
    names: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    image = tmp_path / "a.png"
    PIL.Image.new("RGB", (2, 2)).save(image)
    with serving(Refusing) as url:
        monkeypatch.setenv("MASKQ_S3_ENDPOINT_URL", url)
        for arguments in (
            ["submit", str(image), "--model", MODEL],
            ["submit", "--recursive", "s3://photos/in/", "--manifest", names["manifest"]],
            ["view", world.succeeded],
            ["bench", str(image)],
            ["delete", world.succeeded],
        ):
            code, _, err = maskq(*arguments)
            assert code
            assert r"ERROR forged\u202e" in err, arguments


def test_a_setting_that_is_wrong_is_told_harmlessly(
    maskq: Maskq, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("REDIS_URL", "S3_ENDPOINT_URL", "WEBHOOK_URL", "KEY_PREFIX", "MAX_QUEUED"):
        for value in (TEXT, URL, f"redis://user:{SECRET}/x@h/0", f"redis://u:p?{SECRET}@h"):
            with monkeypatch.context() as patch:
                patch.setenv(f"MASKQ_{name}", value)
                code, _, err = maskq("submit", __file__)
                assert code, (name, value)
                assert err.startswith("maskq: ")


# --- the stack ----------------------------------------------------------------------------------------


def test_last_words_of_a_process_are_harmless(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from maskq_standalone.commands import up

    dying = shlex.join(["printf", "%s", TEXT])
    code = up.run(worker_command=["sh", "-c", f"{dying} >&2; exit 3"])
    out, err = capsys.readouterr()
    assert code == 1
    assert "exited with code 3" in err
    harmless(out + err)
