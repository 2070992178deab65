"""What other people chose is printed and logged as one harmless line, without secrets of URLs."""

from __future__ import annotations

import io
import json
import logging
import re
import subprocess
import sys

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.hostile import HOSTILE, SECRET

from maskq.contract import FailureCode, JobFailure
from maskq.errors import InvalidRequest, StoreUnavailable
from maskq.inert import (
    JsonFormatter,
    LogFormatter,
    fields,
    one_line,
    overwrite_line,
    print_error,
    print_json,
    print_lines,
    printable,
    without_secrets,
)
from maskq.s3.errors import StoreError
from maskq_worker.errors import PermanentError

# --- one line -----------------------------------------------------------------------------------------


def test_what_can_be_read_stays_as_it_is() -> None:
    for text in ("ünï/💥.jpg", "s3://photos/a b@2x.png", "工程/写真.jpg", r"C:\x1b", ""):
        assert one_line(text) == text


def test_what_cannot_be_seen_is_escaped() -> None:
    said = printable(HOSTILE)
    assert said.isprintable()
    assert said.startswith(r"a\x1b[2J\x1b]0;t\x07\r\nERROR forged\u202e")
    assert said.endswith(r"\u2028\x7f\udce9z")


@given(st.text(alphabet=st.characters(exclude_categories=())))
def test_any_text_is_one_printable_line(text: str) -> None:
    assert one_line(text).isprintable()
    assert one_line(one_line(text)) == one_line(text)


# --- secrets ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("at https://u:pw@h.example/a?b=c.", "at https://…@h.example/a?…."),
        ("rediss://:pw@r:6379/0; check it", "rediss://…@r:6379/0; check it"),
        ("redis://u:p@ss/w#r?d@r:6379/0", "redis://…@r:6379/0"),
        ("sentinel://u:pw@a:1;sentinel://b:1/0", "sentinel://…@a:1;sentinel://b:1/0"),
        ("(got 'https://u:pw@h/x?sig=1')", "(got 'https://…@h/x?…')"),
        ('"https://h/x?a=b","https://u:pw@h"', '"https://…@h"'),
        ("url: /b/k?X-Amz-Signature=abc&x=1", "url: /b/k?X-Amz-Signature=…&x=1"),
        ("https://h/photo@2x.png and a@b", "https://h/photo@2x.png and a@b"),
        ("s3://bucket/a:b@c?d.png", "s3://bucket/a:b@c?d.png"),
        (
            "ERR unknown command 'AUTH', with args beginning with: 'u' 'pw'",
            "ERR unknown command 'AUTH', with args beginning with: …",
        ),
    ],
)
def test_secrets_of_urls_are_hidden(text: str, expected: str) -> None:
    assert without_secrets(text) == expected
    assert without_secrets(expected) == expected


@given(
    scheme=st.sampled_from(
        ["http", "https", "HTTPS", "redis", "rediss", "unix", "sentinel", "amqp"]
    ),
    user=st.text(st.characters(categories=["L", "N"]), max_size=5),
    before=st.text(st.characters(exclude_categories=["Z", "C"]), max_size=8),
    after=st.text(st.characters(exclude_categories=["Z", "C"]), max_size=8),
    around=st.sampled_from(["{}", "'{}'", "({}) failed", "to {}: x@y", '{{"url":"{}","b":1}}']),
)
@example("http", "u", "1/", "", "{}")
def test_a_password_is_hidden_whatever_it_holds(
    scheme: str, user: str, before: str, after: str, around: str
) -> None:
    said = one_line(around.format(f"{scheme}://{user}:{before}{SECRET}{after}@host:1/a"))
    assert SECRET not in said


def test_no_error_holds_a_password() -> None:
    text = f"cannot reach https://u:{SECRET}@h"
    for error in (
        InvalidRequest(text),
        StoreUnavailable(text),
        StoreError(FailureCode.STORE_REFUSED, text),
        PermanentError(FailureCode.INTERNAL, text),
        PermanentError(FailureCode.INTERNAL, text).failure(),
        JobFailure(code=FailureCode.INTERNAL, message=text),
    ):
        assert "https://…@h" in str(error)
        assert SECRET not in repr(error)
        assert SECRET not in str(error.__dict__)


# --- the command line ---------------------------------------------------------------------------------


def test_everything_printed_is_harmless(capsys: pytest.CaptureFixture[str]) -> None:
    print_lines(HOSTILE, HOSTILE)
    print_json({HOSTILE: HOSTILE})
    print_error(HOSTILE)
    out, err = capsys.readouterr()
    first, second, document = out.splitlines()
    assert first == second == printable(HOSTILE)
    assert json.loads(document) == {HOSTILE: HOSTILE}
    assert document.isascii()
    assert document.isprintable()
    assert err == printable(HOSTILE) + "\n"


def test_a_line_that_is_overwritten_moves_the_cursor_only_itself() -> None:
    terminal = io.StringIO()
    overwrite_line(f"3 of 9 {HOSTILE}", to=terminal)
    start, rest = terminal.getvalue()[:4], terminal.getvalue()[4:]
    assert start == "\r\x1b[K"
    assert rest.isprintable()


# --- logs ---------------------------------------------------------------------------------------------


def logged(level: str, *arguments: object, error: BaseException | None = None) -> str:
    info = (type(error), error, error.__traceback__) if error else None
    record = logging.LogRecord("maskq", logging.ERROR, "", 1, level, arguments, info)
    return LogFormatter().format(record)


def test_a_record_is_one_line() -> None:
    line = logged("job %s: %s", HOSTILE, f"https://u:{SECRET}@h/x?sig={SECRET}")
    assert line.isprintable()
    assert SECRET not in line


def test_a_traceback_looks_like_no_record() -> None:
    try:
        try:
            raise ValueError(f"{HOSTILE} https://u:{SECRET}@h")
        except ValueError as inner:
            raise RuntimeError("x\n2026-01-01 00:00:00,000 ERROR maskq: forged") from inner
    except RuntimeError as error:
        first, *others = logged("failed", error=error).split("\n")
    assert "Traceback" in others[0]
    assert "forged" not in first
    for line in others:
        assert line.startswith("    ")
        assert line.isprintable()
        assert SECRET not in line


ENDING = """
import sys, threading
from maskq.inert import log_to_stderr
log_to_stderr("DEBUG")
import logging, warnings
hostile = {hostile!r}
logging.getLogger("botocore.auth").debug("StringToSign %s", hostile)
logging.getLogger("maskq").info("said %s", hostile)
warnings.warn(hostile)
threading.Thread(target=lambda: sys.exit(1)).start()
thread = threading.Thread(target=lambda: 1 / len(""), name=hostile)
thread.start()
thread.join()
class Dying:
    def __del__(self): raise ValueError(hostile)
Dying()
raise ValueError(hostile)
"""


def test_a_warning_of_a_process_without_a_log_is_harmless() -> None:
    said = "import logging, maskq.inert as i; i.escape_tracebacks(); logging.getLogger('x').warning(%r)"
    ran = subprocess.run(
        [sys.executable, "-c", said % HOSTILE], capture_output=True, timeout=60, check=True
    )
    assert ran.stderr.decode() == printable(HOSTILE) + "\n"


def test_whatever_ends_a_process_is_told_harmlessly() -> None:
    hostile = f"{HOSTILE}\nhttps://u:{SECRET}@h"
    ran = subprocess.run(
        [sys.executable, "-c", ENDING.format(hostile=hostile)],
        capture_output=True,
        timeout=60,
        check=False,
    )
    said = ran.stderr.decode()
    assert ran.returncode == 1
    assert said.count("Traceback") == 3
    assert "INFO maskq: said" in said
    assert "WARNING py.warnings: " in said
    assert "StringToSign" not in said
    assert SECRET not in said
    for line in said.splitlines():
        assert line.isprintable()
        assert not line.startswith("ERROR forged")


def test_a_json_line_has_the_fields_and_no_secret() -> None:
    record = logging.LogRecord(
        "maskq.x", logging.INFO, "x.py", 1, "job %s\nfrom %s", ("7", "https://u:p@h/a?sig=1"), None
    )
    vars(record).update(
        fields(
            lambda: {"job": "7", "url": "https://u:p@h/a?sig=1", "tenant": None, "stages": {"a": 1}}
        )
    )
    line = JsonFormatter().format(record)
    assert "\n" not in line
    found = json.loads(line)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", found.pop("time"))
    assert found == {
        "level": "INFO",
        "logger": "maskq.x",
        "message": "job 7\nfrom https://…@h/a?…",
        "job": "7",
        "url": "https://…@h/a?…",
        "stages": {"a": 1},
    }


def test_a_json_line_has_the_traceback() -> None:
    try:
        raise ValueError("https://u:p@h/a?sig=1")
    except ValueError:
        record = logging.LogRecord("x", logging.ERROR, "x.py", 1, "no", (), sys.exc_info())
    traceback = json.loads(JsonFormatter().format(record))["traceback"]
    assert "ValueError: https://…@h/a?…" in traceback
