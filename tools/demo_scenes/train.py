"""`python -m demo_scenes.train`: train the demo checkpoint on drawn scenes, from scratch.

A small DPT with ADE20K's 150 classes, of which the scenes show eleven. Seed, scenes and order of the
batches are fixed; another machine's arithmetic may still differ in the last bits. What is shipped took
five runs, some two and a half hours on two cores (`make train ARGS=…`), each with more to see than the
one before:

    --out A --steps 2500 --scenes 3500
    --out B --steps 1600 --scenes 2600 --seed 1 --rate 7e-4 --start A
    --out C --steps 600 --scenes 2000 --seed 2 --rate 4e-4 --start B --side 224
    --out D --steps 200 --scenes 900 --seed 3 --rate 2.5e-4 --start C --side 256
            --steps 500 --scenes 1800 --seed 4 --rate 2.2e-4 --start D --side 288
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from demo_scenes.scenes import draw
from demo_scenes.seeds import TRAINING

GRID = 192  # px: the input's side that position embeddings are kept for; transformers interpolates
PATCH = 8
HELD_BACK = -30.0  # the score of a class that no scene shows
HERE = Path(__file__).parent
LABELS = HERE / "ade20k_labels.json"
CHECKPOINT = HERE.parents[1] / "standalone" / "maskq_standalone" / "demo" / "checkpoint"
# Drawn at several sizes and shapes, then resized as the image processor will: the grain of a texture
# must mean the same in training and in use.
SIZES = ((320, 240), (240, 180), (216, 288), (448, 252), (256, 256))


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--out", type=Path, default=CHECKPOINT)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--steps", type=int, default=2500)
    options.add_argument("--scenes", type=int, default=3500)
    options.add_argument("--batch", type=int, default=8)
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--drawers", type=int, default=2, help="processes that draw")
    options.add_argument("--save-every", type=int, default=300)
    options.add_argument("--side", type=int, default=192, help="px of the network's square input")
    options.add_argument("--rate", type=float, default=1.5e-3, help="highest learning rate")
    options.add_argument("--start", type=Path, help="go on from this checkpoint")
    chosen = options.parse_args()
    torch.manual_seed(chosen.seed)
    torch.set_num_threads(chosen.threads)
    began = time.monotonic()
    images, masks, shown = drawn(chosen.seed, chosen.scenes, chosen.drawers, chosen.side)
    seconds = time.monotonic() - began
    print(f"{len(images)} scenes in {seconds:.0f} s, classes {shown.tolist()}", flush=True)
    network = build(shown, chosen.start)
    training = fit(
        network,
        images,
        masks,
        steps=chosen.steps,
        batch=chosen.batch,
        seed=chosen.seed,
        rate=chosen.rate,
        fresh=chosen.start is None,
    )
    for step, loss in training:
        if step % 20 == 0:
            print(f"{step:5d}  loss {loss:.3f}  {time.monotonic() - began:.0f} s", flush=True)
        if step % chosen.save_every == 0:
            save(network, shown, chosen.out, chosen.side)
    save(network, shown, chosen.out, chosen.side)


def drawn(
    seed: int, count: int, processes: int, side: int
) -> tuple[torch.Tensor, torch.Tensor, NDArray[Any]]:
    """Scenes as (N, 3, side, side) uint8, their masks (N, side, side) as indices into the third: the
    class ids that occur."""
    seeds = [TRAINING.start + seed * 1_000_000 + number for number in range(count)]
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        pairs = pool.map(partial(_one, side), seeds, chunksize=20)
    images = torch.from_numpy(np.stack([image for image, _ in pairs]))
    ids = np.stack([mask for _, mask in pairs])
    shown, indices = np.unique(ids, return_inverse=True)
    return images, torch.from_numpy(indices.reshape(ids.shape)).long(), shown


def _one(side: int, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    scene = draw(seed, size=SIZES[seed % len(SIZES)])
    image = scene.image.resize((side, side), Image.Resampling.BICUBIC)
    mask = Image.fromarray(scene.mask).resize((side, side), Image.Resampling.NEAREST)
    return np.asarray(image).transpose(2, 0, 1).copy(), np.asarray(mask)


def config() -> Any:
    """A DPT of 2.3 M parameters; its finest map is half the input."""
    from transformers import DPTConfig

    labels = dict(enumerate(json.loads(LABELS.read_bytes())))
    return DPTConfig(
        hidden_size=144,
        num_hidden_layers=5,
        num_attention_heads=4,
        intermediate_size=432,
        image_size=GRID,
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


def build(shown: NDArray[Any], start: Path | None) -> Any:
    """The network with a classifier for the classes that occur; `save` gives it all 150."""
    from transformers import DPTForSemanticSegmentation

    if start is None:
        network: Any = DPTForSemanticSegmentation(config())
    else:
        network = DPTForSemanticSegmentation.from_pretrained(start, dtype=torch.float32)
    whole = network.head.head[4]
    network.head.head[4] = nn.Conv2d(whole.in_channels, len(shown), kernel_size=1)
    if start is not None:
        rows = torch.from_numpy(shown).long()
        network.head.head[4].load_state_dict(
            {"weight": whole.weight.detach()[rows], "bias": whole.bias.detach()[rows]}
        )
    return network


def fit(
    network: Any,
    images: torch.Tensor,
    masks: torch.Tensor,
    *,
    steps: int,
    batch: int,
    seed: int,
    rate: float,
    fresh: bool,
) -> Any:
    """Train in place; yields (step, loss) from 1.

    A fresh network learns with rare classes counting more, or it would ignore them; one that goes on
    learns what the score counts: every pixel alike.
    """
    optimizer = torch.optim.AdamW(
        network.parameters(),
        lr=rate,
        weight_decay=0.05,
        betas=(0.9, 0.98),
    )
    warmup = min(100, steps // 10)

    def share(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, share)
    order = torch.Generator().manual_seed(seed)
    weights = _class_weights(masks) if fresh else None
    network.train().to(memory_format=torch.channels_last)  # a seventh faster on a CPU
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


def save(network: Any, shown: NDArray[Any], out: Path, side: int) -> None:
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
        size={"height": side, "width": side},
        keep_aspect_ratio=False,
        resample=Image.Resampling.BICUBIC,
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    ).save_pretrained(out)


if __name__ == "__main__":
    main()
