"""The command in unusual surroundings: streams, locales, arguments, parts that are not installed.

Each command prints through the same `main`, so a few stand for all; what they may print is text of
other people's (a tenant, a file's name), a JSON document, help.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.damaged import damaged

from maskq import Client
from maskq.cli import build
from maskq.extras import MODULES
from maskq.ledger import Ledger, calls
from maskq.settings import Settings

STRANGE = "ünï/💥.jpg"  # no encoding but UTF has it
BYTES = b"caf\xe9.jpg"  # no UTF-8
MASKQ = [sys.executable, "-m", "maskq"]


@pytest.fixture
def job_id(environment: dict[str, str]) -> Iterator[str]:
    """Of a job whose error holds what not every terminal can show."""
    settings = Settings.load()
    ledger = Ledger.of(settings)
    ledger.run(calls.register_model("dëmo", {}))
    ledger.close()
    with Client.from_env() as client:
        job = client.submit(f"s3://photos/{STRANGE}", metadata={"album": STRANGE})
        job.cancel()
        yield job.id


def run(
    *arguments: str | bytes, redirect: str = "", **environment: str
) -> subprocess.CompletedProcess[str]:
    """`maskq` with these arguments; `redirect`: as a shell has it."""
    ran = subprocess.run(
        ["bash", "-c", f'"$@" {redirect}', "bash", *MASKQ, *arguments],
        capture_output=True,
        env={**os.environ, **environment},
        timeout=60,
        check=False,
    )
    said = ran.stderr.decode(errors="backslashreplace")
    assert "Traceback" not in said
    assert "Exception ignored" not in said
    return subprocess.CompletedProcess(
        ran.args, ran.returncode, ran.stdout.decode(errors="backslashreplace"), said
    )


# --- streams ------------------------------------------------------------------------------------------

PRINTING = [["list", "--json"], ["models"], ["--help"]]


@pytest.mark.parametrize("arguments", PRINTING, ids=" ".join)
def test_output_that_is_lost_is_an_error(arguments: list[str], job_id: str) -> None:
    for redirect, reason in ((">/dev/full", "No space left"), (">&-", "Bad file descriptor")):
        ran = run(*arguments, redirect=redirect)
        assert ran.returncode == 1, redirect
        assert ran.stderr.startswith("maskq: the output cannot be written: "), redirect
        assert reason in ran.stderr
        assert ran.stderr.count("\n") == 1, redirect


@pytest.mark.parametrize("arguments", [["list"], ["--help"]], ids=" ".join)
def test_a_reader_that_has_gone_is_told_nothing(arguments: list[str], job_id: str) -> None:
    ran = run(*arguments, redirect="| (exec <&-; sleep 1.5); exit ${PIPESTATUS[0]}")
    assert (ran.returncode, ran.stderr) == (1, "")


@pytest.mark.parametrize("redirect", ["2>/dev/full", "<&- 2>&-"])
def test_a_lost_diagnosis_stops_nothing_and_goes_nowhere_else(redirect: str, job_id: str) -> None:
    ran = run("list", "--limit", "1", "--json", redirect=redirect)
    assert ran.returncode == 0
    assert json.loads(ran.stdout)["jobs"][0]["id"] == job_id
    assert run("status", "nobody", redirect=redirect).returncode == 1
    assert run("status", "nobody", redirect=f"{redirect} | cat").stdout == ""


def test_with_every_stream_closed_it_still_ends(job_id: str) -> None:
    assert run("list", redirect="<&- >&- 2>&-").returncode == 1


def test_a_list_of_images_on_a_closed_stdin_is_one_line(environment: dict[str, str]) -> None:
    ran = run("submit", "--recursive", "-", "--manifest", "/dev/null", redirect="<&-")
    assert ran.returncode == 1
    assert ran.stderr.startswith("maskq: ")
    assert ran.stderr.count("\n") == 1


# --- locales ------------------------------------------------------------------------------------------

LOCALES = {
    "C": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "ascii": {"PYTHONIOENCODING": "ascii"},
    "latin-1": {"PYTHONIOENCODING": "latin-1", "PYTHONUTF8": "0"},
}


@pytest.mark.parametrize("locale", LOCALES.values(), ids=list(LOCALES))
def test_a_terminal_that_cannot_show_a_character_is_shown_its_number(
    locale: dict[str, str], job_id: str
) -> None:
    shown = run("models", **locale)
    assert shown.returncode == 0, shown.stderr
    assert "mo" in shown.stdout
    (document,) = json.loads(run("status", job_id, "--json", **locale).stdout)["jobs"]
    assert document["request"]["image_uri"] == f"s3://photos/{STRANGE}"
    said = run("submit", STRANGE, **locale)
    assert said.returncode == 1
    assert said.stderr.startswith("maskq: cannot read ")
    assert said.stderr.count("\n") == 1
    assert run("-h", **locale).returncode == 0


# --- arguments ----------------------------------------------------------------------------------------


NO_TEXT = [
    ["status", BYTES],
    ["wait", BYTES],
    ["cancel", BYTES],
    ["retry", BYTES],
    ["delete", BYTES],
    ["list", "--tenant", BYTES],
    ["list", "--status", BYTES],
    ["events", "--since", "0", "--idle", "0.1", "--group", BYTES],
    ["submit", "s3://photos/a.png", "--idempotency-key", BYTES],
    ["submit", "s3://photos/a.png", "--metadata", b"a=" + BYTES],
    ["submit", "s3://photos/a.png", "--model", BYTES],
    ["submit", b"s3://photos/" + BYTES],
    ["submit", BYTES],
    ["submit", "--recursive", BYTES],
    ["models", "default", BYTES],
    ["models", "retire", BYTES],
    ["webhooks", "redeliver", BYTES],
    ["webhooks", "list", "--state", BYTES],
    ["view", BYTES],
    ["bench", BYTES],
    ["trigger", "check", BYTES],
    [BYTES],
    ["list", b"--" + BYTES],
]

# All in one process, for its start is what takes time: prints each one's exit code and lines on stderr.
EACH = """
import json, os, sys, tempfile
from maskq.cli import main
said = []
for words in json.load(sys.stdin):
    sys.argv = ["maskq", *(word.encode("latin-1").decode("utf-8", "surrogateescape") for word in words)]
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        sys.stderr = sys.__stderr__
        try:
            main()
        except SystemExit as end:
            sys.stderr.flush()
            file.seek(0)
            said.append((end.code, file.read().decode(errors="backslashreplace")))
sys.stdout.write(json.dumps(said))
"""


def test_an_argument_that_is_no_text_is_a_mistake_and_no_traceback(job_id: str) -> None:
    words = [[os.fsencode(word).decode("latin-1") for word in arguments] for arguments in NO_TEXT]
    ran = subprocess.run(
        [sys.executable, "-c", EACH],
        input=json.dumps(words).encode(),
        capture_output=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr.decode(errors="replace")
    outcomes = json.loads(ran.stdout.splitlines()[-1])
    for arguments, (code, said) in zip(NO_TEXT, outcomes, strict=True):
        assert code in (1, 2), (arguments, said)
        lines = said.splitlines()
        assert len(lines) == 1 or lines[0].startswith("Usage: "), (arguments, said)
        assert "Traceback" not in said


def test_a_file_whose_name_is_no_text_is_submitted(
    environment: dict[str, str], job_id: str
) -> None:
    folder = Path(environment["MASKQ_OUTPUT_PREFIX"])  # a name of its own, below the current folder
    where = Path("/tmp") / folder
    where.mkdir()
    file = os.fsencode(where) + b"/" + BYTES
    Path(os.fsdecode(file)).write_bytes(damaged("bytes"))
    try:
        ran = run("submit", file)
        assert ran.returncode == 0, ran.stderr
        ran = run("submit", "--recursive", os.fsencode(where), "--manifest", str(where / "m.jsonl"))
        assert ran.returncode == 0, ran.stderr
    finally:
        for left in where.iterdir():
            left.unlink()
        where.rmdir()


# --- signals ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_with_the_shell_s_own_code(
    number: signal.Signals, code: int, job_id: str
) -> None:
    child = subprocess.Popen(
        [*MASKQ, "events", "--since", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert child.stdout
        assert child.stdout.readline()  # it is at work
        time.sleep(0.1)
        child.send_signal(number)
        _, said = child.communicate(timeout=30)
    finally:
        child.kill()
    assert child.returncode == code
    assert "Traceback" not in said
    assert said.count("\n") <= 1


# --- parts that are not installed ---------------------------------------------------------------------

HIDING = """
import sys
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {names!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Hidden())
"""


@pytest.fixture
def base_install(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`maskq` where no extra is installed."""
    extras = MODULES.keys() - {"direct"}  # the base install has redis-py and boto3 in this version
    names = {module for extra in extras for module in MODULES[extra]} | {
        "starlette",
        "hiredis",
    }
    (tmp_path / "sitecustomize.py").write_text(HIDING.format(names=names))

    def run_there(*arguments: str) -> subprocess.CompletedProcess[str]:
        return run(*arguments, PYTHONPATH=str(tmp_path))

    return run_there


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        (["worker"], "worker"),
        (["gateway"], "gateway"),
        (["up"], "standalone"),
        (["demo"], "standalone"),
        (["weights", "convert", "."], "worker"),
        (["weights", "quantize", "demo", "--images", "."], "openvino"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else value,
)
def test_a_command_without_its_extra_names_it_and_ends_with_78(
    arguments: list[str], extra: str, base_install: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    ran = base_install(*arguments)
    assert ran.returncode == 78
    assert ran.stderr.startswith("maskq: ")
    assert "pip install 'maskq[" in ran.stderr
    assert ran.stderr.count("\n") == 1
    assert f"maskq[{extra}]" in ran.stderr


def test_a_worker_process_without_its_extra_ends_with_78(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(HIDING.format(names={"celery"}))
    ran = subprocess.run(
        [sys.executable, "-m", "maskq_worker"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode, ran.stderr.count("\n")) == (78, 1)
    assert "maskq[worker]" in ran.stderr


def test_what_the_base_install_does_it_does(
    base_install: Callable[..., subprocess.CompletedProcess[str]], job_id: str, tmp_path: Path
) -> None:
    """The client's commands, and the two processes that need neither model nor web server."""
    assert job_id in base_install("list").stdout
    assert base_install("--help").returncode == 0
    assert "there are no rules" in base_install("trigger", "sqs").stderr
    # Posting webhooks gets as far as its settings.
    assert "MASKQ_WEBHOOK_SECRET" in base_install("worker", "--role", "webhooks").stderr


# --- help, version, completion ------------------------------------------------------------------------


def commands(app: object = None, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every command there is, as its words."""
    from typer.main import get_command

    command = get_command(build()) if app is None else app
    for name, child in getattr(command, "commands", {}).items():
        yield (*path, name)
        yield from commands(child, (*path, name))


def test_every_command_takes_both_words_for_help() -> None:
    from typer.testing import CliRunner

    app, runner = build(), CliRunner()
    found = [(), *commands()]
    assert ("models", "retire") in found
    for words in found:
        short, long = (runner.invoke(app, [*words, option]) for option in ("-h", "--help"))
        assert (short.exit_code, short.output) == (0, long.output), words
        assert "Usage: " in short.output


def test_the_version_is_the_package_s() -> None:
    from importlib.metadata import version

    assert run("--version").stdout == f"maskq {version('maskq')}\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_written_for_a_shell(shell: str) -> None:
    ran = run(_MASKQ_COMPLETE=f"source_{shell}", _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert ran.returncode == 0
    assert "_MASKQ_COMPLETE" in ran.stdout


def test_completion_knows_commands_and_options() -> None:
    words = run(
        _MASKQ_COMPLETE="complete_bash", COMP_WORDS="maskq mod", COMP_CWORD="1"
    ).stdout.split()
    assert words == ["models"]
    options = run(
        _MASKQ_COMPLETE="complete_bash", COMP_WORDS="maskq submit --over", COMP_CWORD="2"
    ).stdout.split()
    assert "--overlay-alpha" in options
