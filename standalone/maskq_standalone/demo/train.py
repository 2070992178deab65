"""`python -m maskq_standalone.demo.train`: train the demo checkpoint on drawn scenes, from scratch.

A small DPT with ADE20K's 150 classes, of which the scenes show eleven. Seed, scenes and order of the
batches are fixed; another machine's arithmetic may still differ in the last bits.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from maskq_standalone.demo.scenes import draw
from maskq_standalone.demo.seeds import TRAINING

SIDE = 192  # px, of the network's square input
PATCH = 8
HELD_BACK = -30.0  # the score of a class that no scene shows
HERE = Path(__file__).parent
LABELS = HERE / "ade20k_labels.json"
# Drawn at several sizes and shapes, then resized as the image processor will: the grain of a texture
# must mean the same in training and in use.
SIZES = ((480, 360), (384, 288), (288, 384), (448, 252), (320, 320))


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--out", type=Path, default=HERE / "checkpoint")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--steps", type=int, default=1500)
    options.add_argument("--scenes", type=int, default=1500)
    options.add_argument("--batch", type=int, default=8)
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--drawers", type=int, default=2, help="processes that draw")
    options.add_argument("--save-every", type=int, default=300)
    chosen = options.parse_args()
    torch.manual_seed(chosen.seed)
    torch.set_num_threads(chosen.threads)
    began = time.monotonic()
    images, masks, shown = drawn(chosen.seed, chosen.scenes, chosen.drawers)
    seconds = time.monotonic() - began
    print(f"{len(images)} scenes in {seconds:.0f} s, classes {shown.tolist()}", flush=True)
    network = build(len(shown))
    for step, loss in fit(network, images, masks, chosen.steps, chosen.batch, chosen.seed):
        if step % 20 == 0:
            print(f"{step:5d}  loss {loss:.3f}  {time.monotonic() - began:.0f} s", flush=True)
        if step % chosen.save_every == 0:
            save(network, shown, chosen.out)
    save(network, shown, chosen.out)


def drawn(seed: int, count: int, processes: int) -> tuple[torch.Tensor, torch.Tensor, NDArray[Any]]:
    """Scenes as (N, 3, SIDE, SIDE) uint8, their masks (N, SIDE, SIDE) as indices into the third: the
    class ids that occur."""
    seeds = [TRAINING.start + seed * 1_000_000 + number for number in range(count)]
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        pairs = pool.map(_one, seeds, chunksize=20)
    images = torch.from_numpy(np.stack([image for image, _ in pairs]))
    ids = np.stack([mask for _, mask in pairs])
    shown, indices = np.unique(ids, return_inverse=True)
    return images, torch.from_numpy(indices.reshape(ids.shape)).long(), shown


def _one(seed: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    scene = draw(seed, size=SIZES[seed % len(SIZES)])
    image = scene.image.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    mask = Image.fromarray(scene.mask).resize((SIDE, SIDE), Image.Resampling.NEAREST)
    return np.asarray(image).transpose(2, 0, 1).copy(), np.asarray(mask)


def config() -> Any:
    """A DPT of 2.3 M parameters; its finest map is half the input."""
    from transformers import DPTConfig

    labels = dict(enumerate(json.loads(LABELS.read_text())))
    return DPTConfig(
        hidden_size=144,
        num_hidden_layers=5,
        num_attention_heads=4,
        intermediate_size=432,
        image_size=SIDE,
        patch_size=PATCH,
        backbone_out_indices=[0, 1, 2, 4],
        reassemble_factors=[2, 1, 0.5, 0.25],
        neck_hidden_sizes=[48, 64, 96, 128],
        fusion_hidden_size=56,
        readout_type="project",
        is_hybrid=False,
        use_auxiliary_head=False,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        semantic_classifier_dropout=0.0,
        id2label=labels,
        label2id={label: number for number, label in labels.items()},
    )


def build(classes: int) -> Any:
    """The network with a classifier for the classes that occur; `save` gives it all 150."""
    from transformers import DPTForSemanticSegmentation

    network = DPTForSemanticSegmentation(config())
    network.head.head[4] = nn.Conv2d(network.config.fusion_hidden_size, classes, kernel_size=1)
    return network


def fit(
    network: Any, images: torch.Tensor, masks: torch.Tensor, steps: int, batch: int, seed: int
) -> Any:
    """Train in place; yields (step, loss) from 1."""
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=1.5e-3, weight_decay=0.05, betas=(0.9, 0.98)
    )
    warmup = min(100, steps // 10)

    def rate(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    order = torch.Generator().manual_seed(seed)
    weights = _class_weights(masks)
    network.train()
    for step in range(1, steps + 1):
        chosen = torch.randint(len(images), (batch,), generator=order)
        pixels = images[chosen].float().div_(127.5).sub_(1.0)  # mean and deviation 0.5
        truth = masks[chosen]
        if torch.rand((), generator=order) < 0.5:
            pixels, truth = pixels.flip(3), truth.flip(2)
        logits = network(pixel_values=pixels).logits
        loss = nn.functional.cross_entropy(logits, truth, weight=weights)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        yield step, loss.item()


def _class_weights(masks: torch.Tensor) -> torch.Tensor:
    """Rare classes (people, cars) count more, by the fourth root of their rarity."""
    share = torch.bincount(masks.flatten()).float() / masks.numel()
    weights = share.clamp_min(1e-4) ** -0.25
    return weights / weights.mean()


def save(network: Any, shown: NDArray[Any], out: Path) -> None:
    """Write the checkpoint in the hub's layout, fp16 safetensors, all 150 classes."""
    from transformers import DPTForSemanticSegmentation
    from transformers.models.dpt.image_processing_pil_dpt import DPTImageProcessorPil

    whole = DPTForSemanticSegmentation(config())
    classes: Any = whole.head.head[4].out_channels
    state = dict(network.state_dict())
    trained = {"weight": state["head.head.4.weight"], "bias": state["head.head.4.bias"]}
    for name, values in trained.items():
        full = torch.zeros([classes, *values.shape[1:]])
        if name == "bias":
            full.fill_(HELD_BACK)
        full[torch.from_numpy(shown).long()] = values.detach()
        state[f"head.head.4.{name}"] = full
    whole.load_state_dict(state)
    whole.half().save_pretrained(out)
    (out / "model.safetensors").chmod(
        0o644
    )  # it is written 0600: no wheel or container could share it
    DPTImageProcessorPil(
        size={"height": SIDE, "width": SIDE},
        keep_aspect_ratio=False,
        resample=Image.Resampling.BICUBIC,
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    ).save_pretrained(out)


if __name__ == "__main__":
    main()
