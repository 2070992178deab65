"""Bytes of others: files of the corpus as they are and changed, documents with other values."""

from __future__ import annotations

import json
from typing import Any

import pytest
from envelopes import envelope
from fuzz.harness import JSON, altered, bounded, corpus, fuzzed, mutated, peak_mib
from fuzz.targets import TARGETS
from hypothesis import strategies as st

TEXTUAL = sorted(TARGETS.keys() - {"image", "rules"})
LARGEST_GROWTH_MIB = 256  # of images of a million pixels


def tried(target: str, data: bytes) -> None:
    with bounded(len(data)):
        TARGETS[target](data)


@pytest.mark.parametrize("target", TARGETS)
def test_every_input_of_the_corpus(target: str) -> None:
    for path in corpus(target):
        tried(target, path.read_bytes())


@pytest.mark.parametrize("target", sorted(TARGETS.keys() - {"image"}))
def test_changed_inputs(target: str) -> None:
    @fuzzed(mutated(target))
    def run(data: bytes) -> None:
        tried(target, data)

    run()


@pytest.mark.parametrize("target", TEXTUAL)
def test_documents_with_other_values(target: str) -> None:
    documents = [json.loads(path.read_bytes()) for path in corpus(target) if path.suffix == ".json"]

    @fuzzed(st.sampled_from(documents).flatmap(altered))
    def run(document: Any) -> None:
        tried(target, json.dumps(document).encode())

    run()


@fuzzed(
    JSON.flatmap(lambda body: altered([[body], {}, {"callbacks": [{"task": "a"}], "chord": None}]))
)
def test_bodies_of_messages(body: Any) -> None:
    from envelopes import encoded

    tried("envelope", json.dumps(envelope() | {"body": encoded(body)}).encode())


@fuzzed(mutated("image"), examples=150)
def test_damaged_images(data: bytes) -> None:
    before = peak_mib()
    tried("image", data)
    assert peak_mib() - before < LARGEST_GROWTH_MIB
