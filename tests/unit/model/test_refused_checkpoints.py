"""A checkpoint that is not right is refused in one sentence; what the scores do not need may differ."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from support import model_reference
from support.model_reference import Edit, edit_json, edit_weights, load, photo, run_one
from transformers import DPTForSemanticSegmentation

from maskq_worker.model import (
    ModelError,
)
from maskq_worker.model.checkpoint.labels import read_labels
from maskq_worker.model.checkpoint.loading import load_network
from maskq_worker.model.families.dpt import DPT
from maskq_worker.model.precision.devices import choose_device

pytestmark = pytest.mark.slow

checkpoint = model_reference.checkpoint
original = model_reference.original


def without(*names: str) -> Edit:
    return edit_weights(
        lambda weights: [weights.pop(n) for n in list(weights) if n.startswith(names)].clear()
    )


def added(name: str) -> Edit:
    return edit_weights(lambda weights: weights.update({name: torch.zeros(2)}))


@pytest.mark.parametrize(
    "edit",
    [
        without("neck.fusion_stage.layers.0.residual_layer1."),  # as in Intel's checkpoint
        without("auxiliary_head."),
        added("dpt.pooler.dense.bias"),
    ],
)
def test_weights_that_do_not_touch_the_scores_may_differ(
    original: Path, checkpoint: Path, edit: Edit
) -> None:
    edit(checkpoint)
    ours, expected = (run_one(load(path), photo(40, 30)) for path in (checkpoint, original))
    assert np.array_equal(ours.logits, expected.logits)


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (without("head.head.4.weight"), r"lacks 1 weights, head\.head\.4\.weight"),
        (without("dpt.encoder.layer.2."), r"lacks 16 weights"),
        (added("dpt.encoder.layer.4.layernorm_before.bias"), "no place for"),
        (edit_json("config.json", num_hidden_layers=3, backbone_out_indices=[0, 1, 1, 2]), "no place"),
        (edit_json("config.json", fusion_hidden_size=8), "does not fit its config.json: .* has shape"),
        (edit_json("config.json", model_type="segformer"), "holds DPTForSemanticSegmentation; maskq"),
        (edit_json("config.json", architectures=["DPTForDepthEstimation"]), "DPTForDepthEstimation"),
        (edit_json("config.json", id2label={"wall": 0}), "id2label|could not be loaded"),
        (lambda path: (path / "config.json").unlink(), "config.json is missing"),
        (lambda path: (path / "config.json").write_text("{"), "cannot be read"),
        (lambda path: (path / "preprocessor_config.json").unlink(), "is missing"),
        (lambda path: (path / "model.safetensors").unlink(), "has no weights"),
        (lambda path: (path / "model.safetensors").write_bytes(b"version https"), "could not be"),
        (
            lambda path: (path / "model.safetensors").rename(path / "pytorch_model.bin"),
            "maskq weights convert",
        ),
    ],
)  # fmt: skip
def test_a_checkpoint_that_is_not_right_is_refused_in_one_sentence(
    checkpoint: Path, edit: Edit, said: str
) -> None:
    edit(checkpoint)
    with pytest.raises(ModelError, match=said) as caught:
        load(checkpoint)
    assert "\n" not in str(caught.value)
    assert "tiny-dpt" in str(caught.value)


def test_loading_is_silent(original: Path, capfd: pytest.CaptureFixture[str]) -> None:
    load(original)
    assert capfd.readouterr() == ("", "")


def test_weights_in_several_files(checkpoint: Path, original: Path) -> None:
    (checkpoint / "model.safetensors").unlink()
    DPTForSemanticSegmentation.from_pretrained(original).save_pretrained(
        checkpoint, max_shard_size="60KB"
    )
    assert len(list(checkpoint.glob("model-*.safetensors"))) > 1
    ours, expected = (run_one(load(path), photo(40, 30)) for path in (checkpoint, original))
    assert np.array_equal(ours.logits, expected.logits)

    next(checkpoint.glob("model-*.safetensors")).unlink()
    with pytest.raises(ModelError, match="is incomplete"):
        load(checkpoint)


def test_a_gpu_that_is_asked_for_is_never_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto").type == "cpu"
    with pytest.raises(ModelError, match="torch finds no GPU"):
        choose_device("cuda")
    with pytest.raises(ModelError, match="expected auto, cpu or cuda"):
        choose_device("cuda:1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert str(choose_device("auto")) == str(choose_device("cuda")) == "cuda:0"


def test_the_verbosity_of_transformers_is_left_as_it_was(original: Path) -> None:
    from transformers.utils import logging

    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    load_network(original, torch.float32, DPT)
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before


def test_labels_do_not_need_torch(original: Path) -> None:
    code = (
        "import sys; import maskq_worker.model, maskq_worker.model.checkpoint.labels as labels;"
        "from pathlib import Path;"
        f"assert labels.read_labels(Path({str(original)!r}))[2] == 'label 2';"
        "assert not {'torch', 'transformers'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    assert read_labels(original)[2] == "label 2"
