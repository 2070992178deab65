"""Which process gets which GPU, with a made-up inventory."""

from __future__ import annotations

import pytest

from maskq import InvalidRequest
from maskq_worker.process import gpus
from maskq_worker.process.gpus import choose, chosen, environment, parse
from maskq_worker.settings import WorkerSettings

LISTING = """\
GPU 0: NVIDIA H200 (UUID: GPU-aaaa)
GPU 1: NVIDIA H200 (UUID: GPU-bbbb)
"""
MIXED = """\
GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-aaaa)
  MIG 3g.20gb     Device  0: (UUID: MIG-1111)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-bbbb)
"""
SLICED = """\
GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-aaaa)
  MIG 3g.20gb     Device  0: (UUID: MIG-1111)
  MIG 3g.20gb     Device  1: (UUID: MIG-2222)
"""


@pytest.mark.parametrize(
    ("listing", "wanted", "uuids"),
    [
        (LISTING, "all", ["GPU-aaaa", "GPU-bbbb"]),
        (LISTING, None, ["GPU-aaaa", "GPU-bbbb"]),
        (LISTING, "1", ["GPU-bbbb"]),
        (LISTING, "1,0", ["GPU-bbbb", "GPU-aaaa"]),
        (LISTING, "GPU-aaaa", ["GPU-aaaa"]),
        (SLICED, "all", ["MIG-1111", "MIG-2222"]),
        (SLICED, "MIG-2222", ["MIG-2222"]),
        (MIXED, "all", ["MIG-1111", "GPU-bbbb"]),
        (MIXED, None, ["MIG-1111", "GPU-bbbb"]),
        ("", None, []),
    ],
)
def test_what_is_asked_for_is_what_is_taken(
    listing: str, wanted: str | None, uuids: list[str]
) -> None:
    assert [gpu.uuid for gpu in choose(wanted, parse(listing))] == uuids


@pytest.mark.parametrize(
    ("listing", "wanted"), [("", "all"), ("", "0"), (LISTING, "2"), (LISTING, "MIG-x")]
)
def test_a_gpu_that_is_absent_is_an_error_never_the_cpu(listing: str, wanted: str) -> None:
    with pytest.raises(InvalidRequest, match=r"--gpus"):
        choose(wanted, parse(listing))


def test_a_process_sees_its_gpu_and_nothing_else() -> None:
    (gpu,) = choose("1", parse(LISTING))
    assert environment(gpu)["CUDA_VISIBLE_DEVICES"] == "GPU-bbbb"
    assert environment(gpu)["MASKQ_DEVICE"] == "cuda"


@pytest.mark.parametrize(
    ("visible", "wanted", "uuids"),
    [
        (None, None, ["GPU-aaaa", "GPU-bbbb"]),
        ("1", None, ["GPU-bbbb"]),
        ("GPU-bb", "all", ["GPU-bbbb"]),
        ("1,7,0", None, ["GPU-bbbb"]),  # CUDA reads no further than a name that is none
        ("", None, []),
        ("1", "0", ["GPU-aaaa"]),
    ],
)
def test_what_cuda_may_not_see_is_taken_by_name_only(
    visible: str | None, wanted: str | None, uuids: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpus, "inventory", lambda: parse(LISTING))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert [gpu.uuid for gpu in chosen(wanted, wants_cpu=False)] == uuids


@pytest.mark.parametrize("setting", [{"device": "cpu"}, {"backend": "cpu"}, {"dtype": "int8"}])
def test_who_wants_the_cpu_gets_it_unless_a_gpu_is_named(
    setting: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpus, "inventory", lambda: parse(LISTING))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    wants_cpu = WorkerSettings.load(**setting).wants_cpu
    assert chosen(None, wants_cpu=wants_cpu) == []
    assert [gpu.uuid for gpu in chosen("0", wants_cpu=wants_cpu)] == ["GPU-aaaa"]
    assert not WorkerSettings().wants_cpu
