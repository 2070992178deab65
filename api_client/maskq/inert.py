"""Escaping untrusted text for terminals and logs: one line, no control characters, no URL secrets.

Object keys, labels, metadata, file names and the answers of servers may hold escape sequences, line
breaks and characters that reorder or hide text. The command line prints through `print_lines`,
`print_json`, `print_error` and `overwrite_line`; every process logs through `log_to_stderr`. Nothing
else writes to a terminal or a log (ruff refuses `print`, `typer.echo` and `logging.basicConfig`).
"""

from __future__ import annotations

import json
import logging
import re
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Final, Literal, TextIO

_ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]

HIDDEN: Final = "…"

# A URL after its scheme. s3:// URIs are excluded: a key may contain any of these characters.
_URL: Final = re.compile(r"(?i)(?<!\bs3)://(\S+)")
_PUNCTUATION: Final = re.compile(r"['\"`)\]}>,;.:]*$")  # that belongs to the sentence around a URL
# The signature of a presigned URL, if only its path and query are printed.
_SIGNATURE: Final = re.compile(
    r"(?i)\b((?:x-(?:amz|goog)-(?:signature|credential|security-token)|signature|sig|awsaccesskeyid)=)"
    r"[^&\s'\"]+"
)
# Redis repeats the arguments of an unknown command; those of AUTH are the password.
_ARGUMENTS: Final = re.compile(r"(?is)(with args beginning with:).*")

_LOG_FORMAT: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_FIELDS: Final = "fields"
_INDENT: Final = "    "
# At DEBUG these loggers log whole requests, with credentials and signatures.
_LOG_REQUESTS: Final = ("boto3", "botocore", "s3transfer", "urllib3")


def printable(text: str) -> str:
    """The text on one line, with unprintable characters escaped as in Python (`\\x1b`)."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)


def without_secrets(text: str) -> str:
    """The text with `…` in place of URLs' users, passwords and queries, and of signatures."""
    if "://" in text:
        text = _URL.sub(_url_without_secrets, text)
    if "=" in text:
        text = _SIGNATURE.sub(rf"\1{HIDDEN}", text)
    if "args" in text:
        text = _ARGUMENTS.sub(rf"\1 {HIDDEN}", text)
    return text


def _url_without_secrets(found: re.Match[str]) -> str:
    rest = found[1]
    scheme = found.string[max(0, found.start() - 5) : found.start()].lower()
    is_web = scheme.endswith(("http", "https"))
    before, at, after = rest.rpartition("@")
    # Everything before the last @: a password may hold characters that URLs should encode. In a path
    # (photo@2x.png) there is one, too.
    user = at and (not is_web or ":" in before or "@" in rest.partition("/")[0])
    if user:
        rest = f"{HIDDEN}@{after}"
    place, question, query = rest.partition("?") if is_web else (rest, "", "")
    if question:
        around = _PUNCTUATION.search(query)
        place += f"?{HIDDEN}{around[0] if around else ''}"
    return f"://{place}"


def one_line(value: object) -> str:
    """The value as one line that is safe to print and log."""
    return printable(without_secrets(str(value)))


# --- the command line ---------------------------------------------------------------------------------


def print_lines(*values: object) -> None:
    """Print each value on a line of its own, on stdout."""
    for value in values:
        print(one_line(value), flush=True)  # noqa: T201


def print_json(document: object) -> None:
    """Print one JSON document on one line of ASCII, on stdout. Values are not redacted."""
    print(json.dumps(document), flush=True)  # noqa: T201


def print_error(value: object, *, to: TextIO | None = None) -> None:
    """Print one line on `to`; default: stderr."""
    print(one_line(value), file=to or sys.stderr, flush=True)


def overwrite_line(value: object = "", *, to: TextIO | None = None) -> None:
    """Replace the current line of the terminal."""
    print(f"\r\x1b[K{one_line(value)}", end="", file=to or sys.stderr, flush=True)


# --- logs and tracebacks ------------------------------------------------------------------------------


class LogFormatter(logging.Formatter):
    """Formats a record as one line, and indents its traceback so that no line looks like a record."""

    def __init__(self, form: str = _LOG_FORMAT) -> None:
        super().__init__(form)

    def format(self, record: logging.LogRecord) -> str:
        record.exc_text = None  # another formatter may have set it
        return super().format(record)

    def formatMessage(self, record: logging.LogRecord) -> str:
        return one_line(super().formatMessage(record))

    def formatException(self, ei: _ExcInfo) -> str:
        return indented(super().formatException(ei))

    def formatStack(self, stack_info: str) -> str:
        return indented(stack_info)


class JsonFormatter(logging.Formatter):
    """Formats a record as one JSON object. A logger adds fields by `extra=fields(…)`."""

    def format(self, record: logging.LogRecord) -> str:
        moment = time.gmtime(record.created)
        document: dict[str, object] = {
            "time": f"{time.strftime('%Y-%m-%dT%H:%M:%S', moment)}.{int(record.msecs):03}Z",
            "level": record.levelname,
            "logger": record.name,
            "message": without_secrets(record.getMessage()),
        }
        if named := getattr(record, _FIELDS, None):
            document |= {
                name: _inert(value) for name, value in named().items() if value is not None
            }
        if record.exc_info:
            document["traceback"] = without_secrets(self.formatException(record.exc_info))
        return json.dumps(document)


def fields(named: Callable[[], Mapping[str, object]]) -> dict[str, object]:
    """The argument `extra` of a logger. named: returns further fields of a JSON line; None: left out.

    It is called only if the line is written as JSON. Text for which callers are responsible is made
    harmless here.
    """
    return {_FIELDS: named}


def _inert(value: object) -> object:
    return without_secrets(value) if isinstance(value, str) else value


def indented(text: str) -> str:
    """Several lines, each indented and safe to print and log."""
    return "\n".join(_INDENT + one_line(line) for line in text.splitlines())


def log_to_stderr(level: str, form: Literal["text", "json"] = "text") -> None:
    """Send this process's logs to stderr, and print uncaught exceptions in the same way."""
    handler = logging.StreamHandler(sys.stderr)  # noqa: TID251
    handler.setFormatter(JsonFormatter() if form == "json" else LogFormatter())
    logging.basicConfig(level=level, handlers=[handler])  # noqa: TID251
    logging.getLogger("botocore.credentials").setLevel(logging.WARNING)  # "Found credentials in …"
    for name in _LOG_REQUESTS:
        logging.getLogger(name).setLevel(max(logging.INFO, logging.getLogger().level))
    logging.captureWarnings(True)
    escape_tracebacks()


def escape_tracebacks() -> None:
    """Print uncaught exceptions with `indented`, and warnings as lines if logging is not configured."""
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(LogFormatter("%(message)s"))
    sys.excepthook = _print_traceback
    sys.unraisablehook = _in_background
    threading.excepthook = _in_background


def _in_background(raised: threading.ExceptHookArgs | sys.UnraisableHookArgs) -> None:
    if raised.exc_type is not SystemExit:  # it ends the thread only
        _print_traceback(raised.exc_type, raised.exc_value, raised.exc_traceback)


def _print_traceback(
    kind: type[BaseException], error: BaseException | None, trace: TracebackType | None
) -> None:
    text = "".join(traceback.format_exception(kind, error, trace))
    print(indented(text), file=sys.stderr, flush=True)  # noqa: T201
