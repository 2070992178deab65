"""A checkpoint's network, with every weight that the scores need accounted for.

Two ways: transformers' own network, and a skeleton of it for `Network` to take apart, which needs no
transformers. Both are held to the same report.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from maskq_worker.model.checkpoint.folder import CONFIG, read_json, weight_files
from maskq_worker.model.errors import ModelError
from maskq_worker.model.families import Family
from maskq_worker.model.families.dpt import DPT
from maskq_worker.model.network import UnsupportedError, skeleton


@dataclass(slots=True)
class Report:
    """How the names and shapes of the stored weights differ from what config.json asks for."""

    missing: set[str] = field(default_factory=set)
    unexpected: set[str] = field(default_factory=set)
    # Name, stored shape, expected shape.
    mismatched: set[tuple[str, tuple[int, ...], tuple[int, ...]]] = field(default_factory=set)


def load_network(directory: Path, dtype: torch.dtype, family: Family = DPT) -> Any:
    """transformers' own network in evaluation mode, with every weight from the checkpoint."""
    with _in_one_sentence(directory), quiet_transformers():
        import transformers

        # By the class, and not by AutoModel, so that a model_type may be missing.
        loader: Any = getattr(transformers, family.architecture)
        network, info = loader.from_pretrained(
            directory,
            dtype=dtype,
            # Not of a hybrid's backbone, which has none. Of others transformers knows what they have.
            attn_implementation={"": "sdpa"} if family is DPT else None,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # so that they are in the report, and refused below
        )
    report = Report(info["missing_keys"], info["unexpected_keys"], info["mismatched_keys"])
    _check_weights(directory, report, network, family)
    return network.eval()


class ScoresOf(nn.Module):
    """transformers' network, called as our own: pixels in, scores out."""

    def __init__(self, source: Any) -> None:
        """source: transformers' network, which loses the head that serves training only."""
        super().__init__()
        if getattr(source, "auxiliary_head", None) is not None:
            source.auxiliary_head = None
        self.source = source

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """pixels: (B, 3, H, W), normalised. Returns (B, C, h, w), unbounded scores."""
        scores: torch.Tensor = self.source(
            pixel_values=pixels.contiguous(), return_dict=True
        ).logits
        return scores


def load_source(directory: Path, device: torch.device | None = None) -> Any:
    """What `Network` takes apart, in float32, with every weight from the checkpoint.

    A skeleton on `device` (left out: the CPU, where weights that are float32 stay in the mapped file),
    or transformers' own network on the CPU where config.json asks for more than the skeleton knows.
    """
    try:
        config = skeleton.read(read_json(directory / CONFIG))
    except UnsupportedError:
        return load_network(directory, torch.float32)
    with _in_one_sentence(directory):
        source = skeleton.Skeleton(config).eval()
        report, weights = _stored(weight_files(directory), source, device or torch.device("cpu"))
    _check_weights(directory, report, source, DPT)
    source.load_state_dict(weights, strict=False, assign=True)
    return source


def _stored(
    files: Iterable[Path], source: nn.Module, device: torch.device
) -> tuple[Report, dict[str, torch.Tensor]]:
    """The weights that fit `source`, each in the type of its place there."""
    from safetensors import safe_open

    places = source.state_dict()
    report, weights = Report(missing=set(places)), {}
    for path in files:
        with safe_open(path, framework="pt", device=str(device)) as file:
            for name in file.keys():  # noqa: SIM118 (it is no dictionary)
                report.missing.discard(name)
                place = places.get(name)
                shape = tuple(file.get_slice(name).get_shape())
                if place is None:
                    report.unexpected.add(name)
                elif shape != place.shape:
                    report.mismatched.add((name, shape, tuple(place.shape)))
                elif not DPT.not_needed.match(name):
                    weights[name] = file.get_tensor(name).to(place.dtype)
    return report, weights


def _check_weights(directory: Path, report: Report, network: nn.Module, family: Family) -> None:
    """A network with weights of chance still gives masks, so each must be there and fit."""
    not_needed = family.not_needed
    for name, stored, expected in sorted(report.mismatched):
        if not not_needed.match(name):
            raise ModelError(
                f"{directory} does not fit its config.json: {name} has shape {tuple(stored)}, "
                f"expected {tuple(expected)}"
            )
    missing = sorted(name for name in report.missing if not not_needed.match(name))
    if missing:
        raise ModelError(f"{directory} lacks {len(missing)} weights, {missing[0]} among them")
    # A weight too many in a part of the network means another network than config.json describes.
    parts = {".".join(name.split(".")[:2]) for name, _ in network.named_modules()}
    surplus = sorted(
        name
        for name in report.unexpected
        if ".".join(name.split(".")[:2]) in parts and not not_needed.match(name)
    )
    if surplus:
        raise ModelError(
            f"{directory} holds {len(surplus)} weights that its config.json has no place for, "
            f"{surplus[0]} among them"
        )


@contextmanager
def _in_one_sentence(directory: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # safetensors, torch and transformers each raise their own
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(f"{directory} could not be loaded: {reason}") from error


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """No progress bar and no report: what matters in it becomes a ModelError."""
    from transformers import utils

    logging: Any = utils.logging  # without annotations
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
