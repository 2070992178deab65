"""The command `maskq`. The worker, gateway and stack packages add their commands if installed."""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
import threading
from importlib.metadata import entry_points, version
from types import FrameType
from typing import Annotated, Any, Final, cast

import typer

from maskq.cli import bench, download, jobs, keys, models, submit, verify, view, views, webhooks
from maskq.cli.comparison import command as comparison
from maskq.cli.doctor import command as doctor
from maskq.cli.monitoring import metrics
from maskq.cli.queueing import tenants, why
from maskq.cli.reporting import streams
from maskq.cli.shadow import command as shadow
from maskq.errors import MaskqError
from maskq.extras import missing
from maskq.inert import escape_tracebacks, print_error, print_lines
from maskq.process import EX_CONFIG, CannotStart

# Click's exception for invalid arguments; typer bundles Click, or uses the installed one.
_ClickError: Final = cast(
    "type[BaseException]",
    next(base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException"),
)
COMMANDS = "maskq.commands"  # entry points: a function that takes the app and adds to it
_NO_OUTPUT = "the output cannot be written"
_FULL_OR_CLOSED = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF)


def build() -> typer.Typer:
    """The command line, with the commands of all installed packages."""
    app = typer.Typer(
        name="maskq",
        help="Segment images through a job queue.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_options)
    submit.register(app)
    jobs.register(app)
    download.register(app)
    models.register(app)
    keys.register(app)
    tenants.register(app)
    why.register(app)
    metrics.register(app)
    webhooks.register(app)
    view.register(app)
    verify.register(app)
    bench.register(app)
    views.register(app)
    doctor.register(app)
    shadow.register(app)
    comparison.register(app)
    for entry in sorted(entry_points(group=COMMANDS), key=lambda entry: entry.name):
        entry.load()(app)
    return app


def _show_version(wanted: bool) -> None:
    if wanted:
        print_lines(f"maskq {version('maskq')}")
        raise typer.Exit


def _options(
    _: Annotated[
        bool,
        typer.Option("--version", help="print the version", callback=_show_version, is_eager=True),
    ] = False,
    transport: Annotated[
        str | None,
        typer.Option(
            help="direct (Redis and S3) or http (the gateway); default: direct if MASKQ_REDIS_URL is "
            "set or MASKQ_GATEWAY_URL is not"
        ),
    ] = None,
) -> None:
    """Segment images through a job queue."""
    if transport is not None:
        if transport not in ("direct", "http"):
            raise typer.BadParameter("give direct or http", param_hint="--transport")
        os.environ["MASKQ_TRANSPORT"] = transport  # read wherever a command makes its client


class _Terminated(BaseException):
    """Raised on SIGTERM, as KeyboardInterrupt is on Ctrl-C, so that `with` blocks close."""


def main() -> None:
    """Run a command and exit: 0 if it succeeded and its output was written.

    Every error is one line on stderr. Exit code 78: a restart would fail again.
    """
    streams.prepare()
    escape_tracebacks()
    in_main = (
        threading.current_thread() is threading.main_thread()
    )  # Python allows signals there only
    handles = in_main and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    if handles:
        signal.signal(signal.SIGTERM, _terminate)
    try:
        code = _run()
    finally:
        escape_tracebacks()  # again: typer replaces the hook
        if handles:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
    lost = streams.lost_output()
    if lost and not code:
        _say(f"{_NO_OUTPUT}: {lost}")
    sys.exit(code or (0 if lost is None else 1))


def _run() -> int:
    try:
        code = build()(prog_name="maskq", standalone_mode=False)
    except SystemExit as end:
        return _say(end.code) if isinstance(end.code, str) else end.code or 0
    except _ClickError as error:
        return _explain(error)
    except typer.Abort:
        return _say("aborted")
    except CannotStart as error:
        return _say(str(error), EX_CONFIG)
    except MaskqError as error:
        return _say(str(error))
    except ModuleNotFoundError as error:
        if reason := missing(error):
            return _say(str(reason), EX_CONFIG)
        raise
    except UnicodeError as error:
        return _say(_not_text(error))
    except OSError as error:
        of_stdout = error.errno in _FULL_OR_CLOSED and error.filename is None
        return _say(f"{_NO_OUTPUT}: {error.strerror}" if of_stdout else str(error))
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except _Terminated:
        return _say("ended by SIGTERM", 128 + signal.SIGTERM)
    return code if isinstance(code, int) else 0


def _explain(error: Any) -> int:
    """Print Click's error, escaped, because it repeats the arguments."""
    text = io.StringIO()
    error.show(file=text)
    for line in text.getvalue().splitlines():
        print_error(line)
    return int(error.exit_code)


def _say(line: str, code: int = 1) -> int:
    print_error(f"maskq: {line}")
    return code


def _not_text(error: UnicodeError) -> str:
    for argument in sys.argv[1:]:
        try:
            argument.encode()
        except UnicodeEncodeError:
            return f"{argument!a} is not valid UTF-8: only names of files may hold other bytes"
    return str(error)


def _terminate(number: int, frame: FrameType | None) -> None:
    raise _Terminated
