"""How inputs are made and what every target must keep: only typed errors, bounded time and memory.

`make test` tries a few dozen inputs a target, the same ones each time; `make fuzz` as many as
FUZZ_EXAMPLES says, others each time. What breaks a target goes into the corpus, which is tried first.
"""

from __future__ import annotations

import os
import resource
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

CORPUS: Final = Path(__file__).parent / "corpus"
EXAMPLES: Final = int(os.environ.get("FUZZ_EXAMPLES", "0"))
_SHORT: Final = 40
_INTERESTING: Final = (
    b"\0", b"\xff", b"\x7f", b"\x80", b"\xff\xff", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff",
    b"\0\0\0\0", b"\xff\xff\xff\x7f", b"null", b"NaN", b"1e999", b"-1", b"9" * 40, b'"',
    b"\\ud800", b"\x1b[2J", b"[" * 50, b'{"a":' * 50, b"../", b"%00", b"\r\n",
)  # fmt: skip


def fuzzed(*strategies: Any, examples: int = _SHORT, **named: Any) -> Callable[[Any], Any]:
    """`given`, as long as this run is to take. `examples`: of the short run."""
    options = settings(
        max_examples=EXAMPLES or examples,
        derandomize=not EXAMPLES,
        database=None,
        deadline=None,  # `bounded` counts processor time, which a busy machine does not change
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )
    return lambda test: options(given(*strategies, **named)(test))


def corpus(target: str) -> list[Path]:
    """Its inputs, by name."""
    return sorted((CORPUS / target).iterdir())


@st.composite
def mutated(draw: st.DrawFn, target: str) -> bytes:
    """An input of the corpus with a few changes, perhaps with the end of another one."""
    seeds = [path.read_bytes() for path in corpus(target)]
    data = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(1, 5))):
        begin = draw(st.integers(0, len(data)))
        end = min(len(data), begin + draw(st.integers(0, 64)))
        match draw(st.integers(0, 5)):
            case 0:
                data[begin:end] = b""
            case 1:
                data[begin:end] = draw(st.binary(max_size=16))
            case 2:
                data[begin:begin] = draw(st.sampled_from(_INTERESTING))
            case 3:
                data[begin:begin] = data[begin:end] * draw(st.integers(1, 20))
            case 4 if begin < len(data):
                data[begin] ^= 1 << draw(st.integers(0, 7))
            case _:
                other = draw(st.sampled_from(seeds))
                data[begin:] = other[draw(st.integers(0, len(other))) :]
    return bytes(data)


JSON: Final = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4)
    ),
    max_leaves=12,
)


@st.composite
def altered(draw: st.DrawFn, document: Any) -> Any:
    """A JSON document in which some values are others, missing or doubled."""

    def walk(value: Any) -> Any:
        if draw(st.integers(0, 9)) == 0:
            return draw(JSON)
        if isinstance(value, dict):
            return {k: walk(v) for k, v in value.items() if draw(st.integers(0, 14))}
        if isinstance(value, list):
            return [
                walk(one) for one in value for _ in range(draw(st.sampled_from((1, 1, 1, 0, 2))))
            ]
        return value

    return walk(document)


@contextmanager
def bounded(size: int, *, cpu_s: float = 2.0) -> Iterator[None]:
    """Fails if what is done with an input of `size` bytes takes more time, or memory of Python's."""
    began = time.thread_time()
    tracemalloc.start()
    try:
        yield
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    spent = time.thread_time() - began
    assert spent < cpu_s, f"{spent:.1f} s for {size} bytes"
    assert peak < 4 * 2**20 + 400 * size, f"{peak} bytes of memory for {size} bytes"


def peak_mib() -> float:
    """The most memory that this process has ever had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
