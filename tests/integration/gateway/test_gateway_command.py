"""`maskq gateway` and `maskq trigger check` as processes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import urllib3
from support import notifications
from support.notifications import ROOT, Gateway, all_jobs, event

from maskq import Client
from maskq_gateway.settings import GatewaySettings

client = notifications.client
gateway = notifications.gateway
settings = notifications.settings

COMMAND_LINE = "from maskq.cli import main; main()"


@contextmanager
def command(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """The command line as a shell runs it."""
    path = os.pathsep.join([str(ROOT / "gateway"), os.environ.get("PYTHONPATH", "")])
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    line = [sys.executable, "-c", COMMAND_LINE, *arguments]
    with subprocess.Popen(line, env={**os.environ, "PYTHONPATH": path}, **pipes) as child:
        try:
            yield child
        finally:
            child.kill()


@pytest.fixture
def rules_file(tmp_path: Path) -> Path:
    file = tmp_path / "rules.toml"
    file.write_text('[[rule]]\nname = "scans"\nbucket = "photos"\n')
    return file


def test_the_command_listens_and_ends_when_told(client: Client, rules_file: Path) -> None:
    with (
        command("gateway", "--port", "0", "--rules", str(rules_file)) as child,
        urllib3.PoolManager(retries=False, timeout=20) as pool,
    ):
        assert child.stderr
        line = child.stderr.readline()
        assert line.startswith("listening on http://127.0.0.1:"), line
        Gateway(line.split()[-1], pool).job(event())
        child.send_signal(signal.SIGTERM)
        _, rest = child.communicate(timeout=30)
        assert (child.returncode, rest) == (0, "")
    assert len(all_jobs(client)) == 1


def test_the_command_says_what_is_missing(settings: GatewaySettings, rules_file: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with command("gateway", "--port", port, "--rules", str(rules_file)) as child:
            assert "cannot be listened at" in child.communicate(timeout=30)[1]


@pytest.mark.parametrize("tokens", ["short", "long-enough-for-a-token,short", "a" * 15])
def test_a_token_that_can_be_guessed_ends_the_start_with_78_and_one_line(
    settings: GatewaySettings, rules_file: Path, monkeypatch: pytest.MonkeyPatch, tokens: str
) -> None:
    monkeypatch.setenv("MASKQ_TRIGGER_TOKENS", tokens)
    with command("gateway", "--port", "0", "--rules", str(rules_file)) as child:
        _, said = child.communicate(timeout=30)
        assert child.returncode == 78
    assert "MASKQ_TRIGGER_TOKENS" in said
    assert "fewer than 16 characters" in said
    assert said.count("\n") == 1
    assert tokens not in said


def test_slow_peers_hold_up_neither_a_notification_nor_the_end(
    client: Client, settings: GatewaySettings, rules_file: Path
) -> None:
    # Given more connections than there may be, each with a request that never ends
    with (
        command("gateway", "--port", "0", "--rules", str(rules_file)) as child,
        ExitStack() as held,
        urllib3.PoolManager(retries=False, timeout=20) as pool,
    ):
        assert child.stderr
        gateway = Gateway(child.stderr.readline().split()[-1], pool)
        address = ("127.0.0.1", int(gateway.url.rpartition(":")[2]))
        for number in range(600):
            slow = held.enter_context(socket.create_connection(address))
            slow.sendall((b"POST /", b"POST /v1/triggers/s3 HTTP/1.1\r\nA: ")[number % 2])

        # When a store notifies, then its job is started
        began = time.monotonic()
        gateway.job(event())
        slow.setblocking(False)
        with pytest.raises(BlockingIOError):  # meanwhile, and not once they are cut off
            slow.recv(1)

        # And the process ends when it is told to
        child.send_signal(signal.SIGTERM)
        _, rest = child.communicate(timeout=30)
        assert (child.returncode, rest) == (0, "")
        assert time.monotonic() - began < 10


def test_rules_are_checked_and_shown(settings: GatewaySettings, rules_file: Path) -> None:
    with command("trigger", "check", str(rules_file)) as child:
        shown, _ = child.communicate(timeout=30)
        assert child.returncode == 0
    assert "scans: s3://photos/" in shown
    assert 'outputs = ["mask"]' in shown
    rules_file.write_text(f'[[rule]]\nname = "scans"\nbucket = "{settings.s3_bucket}"\n')
    with command("trigger", "check", str(rules_file)) as child:
        _, said = child.communicate(timeout=30)
        assert child.returncode == 1
    assert "would start itself by its own outputs" in said
