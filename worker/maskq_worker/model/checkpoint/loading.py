"""Load a checkpoint's network, and check that every weight that the scores need is there.

`load_network` gives transformers' own network. `load_source` gives a skeleton of a DPT, which `Network`
takes apart and which needs no transformers. Both check the weights by the same rules.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import nn

from maskq_worker.model.checkpoint.files import CONFIG, read_json, weight_files
from maskq_worker.model.checkpoint.transformers_log import quiet_transformers
from maskq_worker.model.errors import ModelError
from maskq_worker.model.network import UnsupportedError, skeleton

if TYPE_CHECKING:
    import re


class NetworkClass(Protocol):
    """The class of transformers that a checkpoint holds. A `Family` is one."""

    @property
    def architecture(self) -> str:
        """The name of the class."""

    @property
    def attention(self) -> str | None:
        """The implementation of attention that transformers is asked for; None: its own choice."""

    @property
    def not_needed(self) -> re.Pattern[str]:
        """The names of weights that no score depends on."""


@dataclass(slots=True)
class Report:
    """How the names and shapes of the stored weights differ from what config.json asks for."""

    missing: set[str] = field(default_factory=set)
    unexpected: set[str] = field(default_factory=set)
    # Name, stored shape, expected shape.
    mismatched: set[tuple[str, tuple[int, ...], tuple[int, ...]]] = field(default_factory=set)


def load_network(directory: Path, dtype: torch.dtype, family: NetworkClass) -> Any:
    """transformers' own network in evaluation mode, with every weight from the checkpoint."""
    with _errors_in_one_sentence(directory), quiet_transformers():
        import transformers

        # By the class, and not by AutoModel, so that a model_type may be missing.
        loader: Any = getattr(transformers, family.architecture)
        network, info = loader.from_pretrained(
            directory,
            dtype=dtype,
            # The empty name leaves out a hybrid's backbone, which has no attention.
            attn_implementation={"": family.attention} if family.attention else None,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # the report lists them, and _check_weights refuses them
        )
    report = Report(info["missing_keys"], info["unexpected_keys"], info["mismatched_keys"])
    _check_weights(directory, report, network, family)
    return network.eval()


class TransformersNetwork(nn.Module):
    """transformers' network with the interface of `Network`: pixels in, scores out."""

    def __init__(self, source: Any) -> None:
        """source: transformers' network. Its auxiliary head, which only training uses, is removed."""
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


def load_source(directory: Path, family: NetworkClass, device: torch.device | None = None) -> Any:
    """The float32 network of a DPT checkpoint that `Network` takes apart.

    Returns a skeleton on `device` (default: the CPU, where float32 weights stay in the mapped file). If
    config.json describes more than the skeleton supports, returns transformers' network on the CPU.
    """
    try:
        config = skeleton.read(read_json(directory / CONFIG))
    except UnsupportedError:
        return load_network(directory, torch.float32, family)
    with _errors_in_one_sentence(directory):
        source = skeleton.Skeleton(config).eval()
        report, weights = _stored(
            weight_files(directory), source, family, device or torch.device("cpu")
        )
    _check_weights(directory, report, source, family)
    source.load_state_dict(weights, strict=False, assign=True)
    return source


def _stored(
    files: Iterable[Path], source: nn.Module, family: NetworkClass, device: torch.device
) -> tuple[Report, dict[str, torch.Tensor]]:
    """Read the weights that fit `source`, each in the dtype of its place there."""
    from safetensors import safe_open

    places = source.state_dict()
    report, weights = Report(missing=set(places)), {}
    for path in files:
        with safe_open(path, framework="pt", device=str(device)) as file:
            for name in file.keys():  # noqa: SIM118 (it is not a dictionary)
                report.missing.discard(name)
                place = places.get(name)
                shape = tuple(file.get_slice(name).get_shape())
                if place is None:
                    report.unexpected.add(name)
                elif shape != place.shape:
                    report.mismatched.add((name, shape, tuple(place.shape)))
                elif not family.not_needed.match(name):
                    weights[name] = file.get_tensor(name).to(place.dtype)
    return report, weights


def _check_weights(
    directory: Path, report: Report, network: nn.Module, family: NetworkClass
) -> None:
    """Refuse missing, misshapen and surplus weights: random weights still give masks."""
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
    # A surplus weight in a part of the network means that config.json describes another network.
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
def _errors_in_one_sentence(directory: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # safetensors, torch and transformers raise many types
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(f"{directory} could not be loaded: {reason}") from error
