"""What `maskq up` does: the stack until SIGTERM or Ctrl-C."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from maskq import environment
from maskq.inert import print_error
from maskq.process.stop_signal import STOP_SIGNALS
from maskq_standalone.children.child import ChildError, explain
from maskq_standalone.stack import Stack
from maskq_standalone.state_dir import write_private
from maskq_worker.process.supervised import Stopped

CHECK_S = 0.2
RECEIVERS = "MASKQ_WEBHOOK_ALLOWED_HOSTS"
HERE = "127.0.0.1,localhost"  # somebody who tries webhooks has a receiver on the same machine
_OURS = "# of a running `maskq up`, which removes it"  # the first line of its settings
SIGNALS = (*STOP_SIGNALS, signal.SIGHUP)  # SIGHUP: the terminal was closed


def run(
    directory: Path | None = None,
    *,
    workers: int = 1,
    model: str = "demo",
    env_file: Path | None = None,
    rules: Path | None = None,
    log_level: str | None = None,
    bucket: str = "maskq",
    redis_binary: str | Path | None = None,
    env: Mapping[str, str] | None = None,
    worker_command: Sequence[str] | None = None,
) -> int:
    """Start the stack, report on stderr, restart what dies, stop at a signal. Main thread only.

    Returns the exit status: 0, or 1 after one line that names what could not start, and why.

    directory: None: a temporary one. env_file: gets the settings once all processes are ready, and is
    removed at the stop; None: `env` in the directory. The rest as in Stack.
    """
    started_at = time.monotonic()
    stack = Stack(
        directory,
        workers=workers,
        model=model,
        env={RECEIVERS: environment.value(RECEIVERS) or HERE} | dict(env or {}),
        webhooks=True,
        http_api=True,
        rules=rules,
        log_level=log_level,
        bucket=bucket,
        redis_binary=redis_binary,
        worker_command=worker_command,
        report=say,
    )
    with stack.stop_signal.listening(SIGNALS):
        try:
            _refuse_unwritable(env_file)
            stack.start()
            with _env_file(env_file or stack.directory / "env", stack.environment) as path:
                say(f"all ready in {time.monotonic() - started_at:.2f} s")
                _say_how(path, stack.environment["MASKQ_GATEWAY_URL"])
                while not stack.stop_signal.wait(CHECK_S):
                    stack.check()
                say("stopping")
        except Stopped:
            say("stopped before all was ready")
            return 1
        except ChildError as error:
            say(f"maskq up: {error}")
            return 1
        finally:
            stack.stop()
    return 0


def say(line: str) -> None:
    """Print a line of progress on stderr; stdout is for results."""
    with contextlib.suppress(BrokenPipeError):
        print_error(line)


def _say_how(env_file: Path, url: str) -> None:
    path = shlex.quote(str(env_file))
    say(f"  use it:  set -a; . {path}; set +a; maskq submit photo.jpg")
    say(f"  by HTTP: {url}/v1/jobs with the key in MASKQ_API_KEY of that file")
    say(f"  look at it: {url}/ in a browser, with the same key")
    say("  stop it: Ctrl-C, twice to stop at once")


@contextlib.contextmanager
def _env_file(path: Path, environment: Mapping[str, str]) -> Iterator[Path]:
    """Write KEY=value lines that a shell can source; remove the file after the block."""
    lines = [f"{name}={shlex.quote(value)}" for name, value in environment.items()]
    text = "\n".join([_OURS, *lines, ""])
    path = path.absolute()
    try:
        write_private(path, text)
    except OSError as error:
        raise ChildError(f"cannot write the settings: {explain(error, path)}") from None
    try:
        yield path
    finally:
        # Another stack may have written the same file since.
        with contextlib.suppress(OSError):
            if path.read_text(encoding="utf-8") == text:
                path.unlink()


def _refuse_unwritable(env_file: Path | None) -> None:
    """Called before a model is loaded, which may take minutes. Raises ChildError."""
    if env_file is None:
        return
    folder = env_file.absolute().parent
    if not folder.is_dir():
        raise ChildError(f"cannot write the settings: {folder} is not a directory")
    if not os.access(folder, os.W_OK) or env_file.is_dir():
        raise ChildError(f"cannot write the settings to {env_file}")
    if env_file.exists() and not env_file.read_bytes().startswith(_OURS.encode()):
        raise ChildError(f"{env_file} is there already and not written by `maskq up`; name another")
