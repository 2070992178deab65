"""A tiny checkpoint, edits of it, and transformers' own answer."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoImageProcessor, DPTConfig, DPTForSemanticSegmentation
from transformers.models.dpt.image_processing_pil_dpt import DPTImageProcessorPil

from maskq.contract import Output
from maskq_worker.model import (
    Segmenter,
    load_segmenter,
)
from maskq_worker.settings import WorkerSettings

SIDE = 64  # px
LABELS = 150
Edit = Callable[[Path], None]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DPT of random weights in the hub's layout, with scores that differ from pixel to pixel."""
    directory = tmp_path_factory.mktemp("checkpoint") / "tiny-dpt"
    config = DPTConfig(
        image_size=SIDE,
        patch_size=16,
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=64,
        backbone_out_indices=[0, 1, 2, 3],
        neck_hidden_sizes=[16, 16, 32, 32],
        fusion_hidden_size=16,
        id2label={index: f"label {index} " for index in range(LABELS)},
        label2id={f"label {index} ": index for index in range(LABELS)},
    )
    torch.manual_seed(7)
    network = DPTForSemanticSegmentation(config).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=2.0 / parameter[0].numel() ** 0.5)
    network.save_pretrained(directory)
    processor = DPTImageProcessorPil(
        size={"height": SIDE, "width": SIDE},
        resample=Image.Resampling.BILINEAR,
        image_mean=[0.5, 0.4, 0.3],
        image_std=[0.5, 0.6, 0.7],
    )
    processor.save_pretrained(directory)
    return directory


@pytest.fixture
def checkpoint(original: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(original, tmp_path / "tiny-dpt"))


def load(directory: Path, **settings: Any) -> Segmenter:
    return load_segmenter(WorkerSettings(model=str(directory), device="cpu", **settings))


def photo(width: int, height: int, seed: int = 3) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def transformers_answer(directory: Path, image: Image.Image) -> tuple[torch.Tensor, np.ndarray]:
    """Logits and mask by nothing but transformers."""
    processor = AutoImageProcessor.from_pretrained(directory, backend="pil")
    network = DPTForSemanticSegmentation.from_pretrained(directory, attn_implementation="sdpa")
    with torch.inference_mode():
        outputs = network.eval()(**processor(images=image, return_tensors="pt"))
        masks = processor.post_process_semantic_segmentation(
            outputs, target_sizes=[(image.height, image.width)]
        )
    return outputs.logits[0], masks[0].numpy()


def run_one(segmenter: Segmenter, image: Image.Image) -> Any:
    [output] = segmenter.run([segmenter.prepare(image, outputs=frozenset(Output))])
    assert not isinstance(output, Exception), output
    return output


def edit_json(name: str, **changes: Any) -> Edit:
    def edit(directory: Path) -> None:
        path = directory / name
        content = json.loads(path.read_text())
        path.write_text(json.dumps({**content, **changes}))

    return edit


def edit_weights(change: Callable[[dict[str, torch.Tensor]], None]) -> Edit:
    def edit(directory: Path) -> None:
        path = directory / "model.safetensors"
        weights = load_file(path)
        change(weights)
        save_file(weights, path, metadata={"format": "pt"})

    return edit
