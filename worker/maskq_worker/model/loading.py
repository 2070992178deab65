"""transformers' network from a checkpoint, with every weight that the scores need accounted for."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from maskq_worker.model.errors import ModelError

# The first fusion layer has no second input, so Intel's checkpoints lack the layer that would take
# it; the auxiliary head serves training only. Neither touches the scores.
_NOT_NEEDED = re.compile(r"neck\.fusion_stage\.layers\.0\.residual_layer1\.|auxiliary_head\.")
# A weight too many in these parts means another network than config.json describes.
_NETWORK = re.compile(r"(dpt\.(embeddings|encoder)|neck|head)\.(?!.*num_batches_tracked$)")


def load_network(directory: Path, dtype: torch.dtype) -> Any:
    """DPTForSemanticSegmentation in evaluation mode, with every weight from the checkpoint."""
    from transformers import DPTForSemanticSegmentation

    loader: Any = DPTForSemanticSegmentation  # its annotations leave out the report
    try:
        with _quiet_transformers():
            network, report = loader.from_pretrained(
                directory,
                dtype=dtype,
                attn_implementation={"": "sdpa"},  # not of a hybrid's backbone, which has none
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=False,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # so that they are in the report, and refused below
            )
    except Exception as error:  # safetensors, torch and transformers each raise their own
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(f"{directory} could not be loaded: {reason}") from error
    _check_weights(directory, report)
    return network.eval()


def _check_weights(directory: Path, report: dict[str, Any]) -> None:
    """A network with weights of chance still gives masks, so each must be there and fit."""
    for name, stored, expected in sorted(report["mismatched_keys"]):
        if not _NOT_NEEDED.match(name):
            raise ModelError(
                f"{directory} does not fit its config.json: {name} has shape {tuple(stored)}, "
                f"expected {tuple(expected)}"
            )
    missing = sorted(key for key in report["missing_keys"] if not _NOT_NEEDED.match(key))
    if missing:
        raise ModelError(f"{directory} lacks {len(missing)} weights, {missing[0]} among them")
    surplus = sorted(key for key in report["unexpected_keys"] if _NETWORK.match(key))
    if surplus:
        raise ModelError(
            f"{directory} holds {len(surplus)} weights that its config.json has no place for, "
            f"{surplus[0]} among them"
        )


@contextmanager
def _quiet_transformers() -> Iterator[None]:
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
