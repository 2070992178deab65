"""W3C Trace Context: what is taken, what is ignored, and the ids that follow from a job."""

from __future__ import annotations

import pytest

from maskq.contract.tracing import TraceContext, span_id_of_attempt, trace_id_of_job

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
VALID = f"00-{TRACE}-{SPAN}-01"


@pytest.mark.parametrize(
    ("header", "taken"),
    [
        (VALID, VALID),
        (f"  {VALID} ", VALID),
        (f"00-{TRACE}-{SPAN}-00", f"00-{TRACE}-{SPAN}-00"),
        # A later version is read as far as this one goes.
        (f"cc-{TRACE}-{SPAN}-03-what-follows", f"00-{TRACE}-{SPAN}-03"),
    ],
)
def test_a_valid_header_is_passed_on(header: str, taken: str) -> None:
    found = TraceContext.parse(header)
    assert found is not None
    assert found.traceparent == taken
    assert found.headers() == {"traceparent": taken}


@pytest.mark.parametrize(
    "header",
    [
        None,
        7,
        b"00",
        "",
        "x",
        VALID.upper(),
        f"{VALID}-more",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE[:-1]}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE}-{SPAN}-01\nx",
        f"00-{'٣' * 32}-{SPAN}-01",
        f"cc-{TRACE}-{SPAN}-01-{'a' * 300}",
    ],
)
def test_an_invalid_header_is_ignored(header: object) -> None:
    assert TraceContext.parse(header, "rojo=1") is None


@pytest.mark.parametrize(
    ("state", "taken"),
    [
        ("rojo=1,congo=2", "rojo=1,congo=2"),
        ("", ""),
        (None, ""),
        (["rojo=1"], ""),
        ("a=" + "b" * 511, ""),
        ("a=b\r\nx: y", ""),
        ("a=é", ""),
        (" a=1 ,, b@c=2\t", "a=1,b@c=2"),
        ("a=1,a=2", ""),
        ("a=1,b", ""),
        ("A=1", ""),
        ("a=1=2", ""),
        ("a=", ""),
        (",".join(f"k{number}=1" for number in range(33)), ""),
    ],
)
def test_an_invalid_state_is_dropped(state: object, taken: str) -> None:
    found = TraceContext.parse(VALID, state)
    assert found is not None
    assert found.tracestate == taken


def test_the_headers_of_a_message_are_read() -> None:
    found = TraceContext.of_headers({"traceparent": VALID, "tracestate": "a=b", "baggage": "k=v"})
    assert found == TraceContext(TRACE, SPAN, "01", "a=b")
    assert found.headers() == {"traceparent": VALID, "tracestate": "a=b"}
    assert TraceContext.of_headers({}) is None


def test_ids_of_a_job_are_valid_and_differ() -> None:
    trace = trace_id_of_job("job-1")
    spans = {span_id_of_attempt("job-1", attempt) for attempt in (1, 2, 3)}
    assert len(spans) == 3
    for span in spans:
        assert TraceContext.parse(TraceContext(trace, span).traceparent) is not None
    assert trace_id_of_job("job-2") != trace
    assert trace_id_of_job("job-1") == trace
