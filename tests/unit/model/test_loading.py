"""What is read without transformers, against transformers itself."""

from __future__ import annotations

import copy
import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import DPTConfig, DPTForSemanticSegmentation, PreTrainedConfig
from transformers.models.dpt.image_processing_pil_dpt import DPTImageProcessorPil

import maskq_standalone
from maskq_worker.model import ModelError
from maskq_worker.model.checkpoint.folder import Checkpoint
from maskq_worker.model.checkpoint.loading import load_network, load_source
from maskq_worker.model.families.dpt import DPT
from maskq_worker.model.masks.reference import plain_mask, transformers_mask
from maskq_worker.model.network import Network, UnsupportedError, skeleton
from maskq_worker.model.preprocess.from_checkpoint import load_preprocessor
from maskq_worker.model.preprocess.settings import DEFAULTS, PlainSettings

pytestmark = pytest.mark.slow

DEMO = Path(maskq_standalone.__file__).parent / "demo" / "checkpoint"
SMALL: dict[str, Any] = {
    "image_size": 64,
    "hidden_size": 32,
    "num_hidden_layers": 5,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "backbone_out_indices": [0, 1, 2, 3],
    "neck_hidden_sizes": [8, 12, 16, 20],
    "fusion_hidden_size": 12,
    "num_labels": 7,
}
BIT = {
    "model_type": "bit",
    "global_padding": "same",
    "layer_type": "bottleneck",
    "embedding_dynamic_padding": True,
    "embedding_size": 16,
    "hidden_sizes": [8, 16, 40],
    "depths": [1, 1, 1],
    "num_groups": 2,
    "out_features": ["stage1", "stage2", "stage3"],
}
HYBRID = {
    "is_hybrid": True,
    "backbone_config": BIT,
    "backbone_featmap_shape": [1, 40, 4, 4],
    "neck_hidden_sizes": [8, 16, 16, 20],
    "reassemble_factors": [1, 1, 1, 0.5],
    "backbone_out_indices": [0, 1, 2, 4],
}
VARIANTS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "as Intel's": {"use_batch_norm_in_fusion_residual": True},
    "norms and biases": {
        "use_batch_norm_in_fusion_residual": True,
        "use_bias_in_fusion_residual": True,
    },
    "neither": {"use_bias_in_fusion_residual": False},
    "readout ignored": {"readout_type": "ignore"},
    "readout added": {"readout_type": "add"},
    "other sizes": {
        "patch_size": 8,
        "hidden_size": 24,
        "num_attention_heads": 2,
        "fusion_hidden_size": 20,
        "num_labels": 150,
        "reassemble_factors": [2, 1, 0.5, 0.25],
        "backbone_out_indices": [0, 1, 2, 4],
        "layer_norm_eps": 1e-6,
    },
    "without qkv bias": {"qkv_bias": False},
    "relu": {"hidden_act": "relu"},
    "no auxiliary head": {"use_auxiliary_head": False},
}
Edit = Callable[[Path], None]


def save(directory: Path, **changes: Any) -> Path:
    """A DPT in which every weight is drawn at random, in the hub's layout."""
    network = DPTForSemanticSegmentation(DPTConfig(**{**SMALL, **changes})).eval()
    draw = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in network.parameters():
            scale = 0.4 if parameter.ndim == 1 else 1.5 / parameter[0].numel() ** 0.5
            parameter.copy_(scale * torch.randn(parameter.shape, generator=draw))
        for name, buffer in network.named_buffers():
            if "running" in name:
                buffer.copy_(0.5 + torch.rand(buffer.shape, generator=draw))
    network.save_pretrained(directory)
    DPTImageProcessorPil(size={"height": 64, "width": 64}).save_pretrained(directory)
    return directory


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return save(tmp_path / "tiny")


def edit_json(name: str, *left_out: str, **changes: Any) -> Edit:
    def edit(directory: Path) -> None:
        path = directory / name
        content = {**json.loads(path.read_text()), **changes}
        path.write_text(json.dumps({k: v for k, v in content.items() if k not in left_out}))

    return edit


def edit_weights(change: Callable[[dict[str, torch.Tensor]], None]) -> Edit:
    def edit(directory: Path) -> None:
        weights = load_file(directory / "model.safetensors")
        change(weights)
        save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})

    return edit


def halve(weights: dict[str, torch.Tensor]) -> None:
    weights |= {name: w.half() for name, w in weights.items() if w.is_floating_point()}


def without(*names: str) -> Edit:
    return edit_weights(
        lambda weights: [weights.pop(n) for n in list(weights) if n.startswith(names)].clear()
    )


def added(name: str) -> Edit:
    return edit_weights(lambda weights: weights.update({name: torch.zeros(2)}))


def cut(name: str) -> Edit:
    """One weight with a row less."""
    return edit_weights(lambda weights: weights.update({name: weights[name][:-1].clone()}))


def settings(**changes: Any) -> dict[str, Any]:
    """What stands in config.json."""
    labels = {str(number): "label" for number in range(7)}
    return {key: value for key, value in SMALL.items() if key != "num_labels"} | {
        "id2label": labels, **changes
    }  # fmt: skip


# The configuration.


def test_defaults_are_those_of_transformers() -> None:
    ours = skeleton.read({"id2label": {"0": "wall", "1": "sky"}})
    theirs = DPTConfig()
    for field in fields(ours):
        value = getattr(theirs, field.name)
        assert getattr(ours, field.name) == (tuple(value) if isinstance(value, list) else value)


def test_every_setting_of_transformers_is_known_or_of_no_matter() -> None:
    """A release of transformers with a new one shows here."""
    no_matter = {  # training, other heads, hybrids, initial values; dropouts are off
        "add_projection", "attention_probs_dropout_prob", "auxiliary_loss_weight",
        "backbone_featmap_shape", "hidden_dropout_prob", "initializer_range", "pooler_act",
        "pooler_output_size", "semantic_classifier_dropout", "semantic_loss_ignore_index",
    }  # fmt: skip
    theirs = {field.name for field in fields(DPTConfig)}
    theirs -= {field.name for field in fields(PreTrainedConfig)}
    ours = {field.name for field in fields(skeleton.Config)} - {"num_labels"}
    assert theirs == ours | no_matter
    assert not ours & no_matter


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (HYBRID, "is_hybrid"),
        ({"backbone": "resnet50"}, "backbone"),
        ({"backbone_config": {"model_type": "dinov2"}}, "backbone_config"),
        ({"quantization_config": {"quant_method": "bitsandbytes"}}, "quantization_config"),
        ({"per_layer_config": {"0": {"hidden_size": 8}}}, "per_layer_config"),
        ({"hidden_size": "32"}, "hidden_size '32'"),
        ({"hidden_size": None}, "hidden_size None"),
        ({"num_hidden_layers": True}, "num_hidden_layers True"),
        ({"qkv_bias": 1}, "qkv_bias 1"),
        ({"patch_size": [16, 16]}, "patch_size"),
        ({"image_size": [64, 64]}, "image_size"),
        ({"neck_hidden_sizes": [8, 12.0, 16, 20]}, "neck_hidden_sizes"),
        ({"reassemble_factors": [4, 2, 1]}, "reassemble_factors"),
        ({"reassemble_factors": [4.0, 2, 1, 0.5]}, "reassemble_factors"),
        ({"reassemble_factors": [4, 2, 1, 0]}, "reassemble_factors"),
        ({"backbone_out_indices": [0, 1, 1, 2]}, "backbone_out_indices"),
        ({"readout_type": "mean"}, "readout_type"),
        ({"num_attention_heads": 5}, "num_attention_heads"),
        ({"num_attention_heads": 0}, "num_attention_heads"),
        ({"hidden_act": "silu"}, "hidden_act"),
        ({"head_in_index": 1}, "head_in_index"),
        ({"id2label": None, "num_labels": None}, "num_labels"),
        ({"id2label": {"wall": 0}}, "id2label"),
        ({"use_bias_in_fusion_residual": 1}, "use_bias_in_fusion_residual"),
    ],
)
def test_what_a_skeleton_does_not_know_is_left_to_transformers(
    changes: dict[str, Any], said: str
) -> None:
    skeleton.read(settings())
    with pytest.raises(UnsupportedError, match=said):
        skeleton.read(settings(**changes))


def test_keys_of_other_times_and_of_no_matter_change_nothing() -> None:
    odd = {
        "torch_dtype": "float32",
        "channels": 256,
        "neck_ignore_stages": [0, 1],
        "backbone": None,
    }
    assert skeleton.read(settings(**odd)) == skeleton.read(settings())


# The network.


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_skeleton_has_the_places_of_transformers_network(variant: str) -> None:
    config = DPTConfig(**{**SMALL, **VARIANTS[variant]})
    theirs = DPTForSemanticSegmentation(config).state_dict()
    ours = skeleton.Skeleton(skeleton.read(json.loads(config.to_json_string()))).state_dict()
    assert {name: (w.shape, w.dtype) for name, w in ours.items()} == {
        name: (w.shape, w.dtype) for name, w in theirs.items()
    }
    assert all(weight.is_meta for weight in ours.values())


@torch.inference_mode()
def same_scores(directory: Path) -> bool:
    """Whether both sources make the same network, bit for bit."""
    ours, theirs = load_source(directory, DPT), load_network(directory, torch.float32, DPT)
    assert type(ours) is skeleton.Skeleton
    ours, theirs = Network(ours), Network(theirs)
    weights, expected = ours.state_dict(), theirs.state_dict()
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
    pixels = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(9))
    scores: torch.Tensor = ours(pixels)
    assert scores.std() > 0.01  # else the test could not fail
    return torch.equal(scores, theirs(pixels))


@pytest.mark.parametrize("variant", VARIANTS)
def test_both_sources_make_the_same_network(variant: str, tmp_path: Path) -> None:
    assert same_scores(save(tmp_path / "tiny", **VARIANTS[variant]))


def test_both_make_the_same_network_of_the_demo() -> None:
    assert same_scores(DEMO)


@pytest.mark.parametrize(
    "edit",
    [
        edit_weights(halve),
        without("neck.fusion_stage.layers.0.residual_layer1."),  # as in Intel's checkpoint
        without("auxiliary_head."),
        cut("auxiliary_head.head.4.weight"),
        added("dpt.pooler.dense.bias"),
        added("head.head.7.num_batches_tracked"),
        edit_json("config.json", "layer_norm_eps", "patch_size", "qkv_bias", "readout_type"),
        edit_json("config.json", torch_dtype="float16", dtype=None, channels=256),
    ],
)
def test_both_take_what_does_not_touch_the_scores(checkpoint: Path, edit: Edit) -> None:
    edit(checkpoint)
    assert same_scores(checkpoint)


def test_both_take_weights_in_several_files(checkpoint: Path) -> None:
    network = DPTForSemanticSegmentation.from_pretrained(checkpoint)
    (checkpoint / "model.safetensors").unlink()
    network.save_pretrained(checkpoint, max_shard_size="60KB")
    assert len(list(checkpoint.glob("model-*.safetensors"))) > 1
    assert same_scores(checkpoint)


@pytest.mark.parametrize(
    "edit",
    [
        without("head.head.4.weight"),
        without("dpt.encoder.layer.2.", "dpt.layernorm."),
        cut("dpt.embeddings.position_embeddings"),
        cut("neck.convs.3.weight"),
        added("dpt.encoder.layer.5.layernorm_before.bias"),
        edit_json("config.json", num_hidden_layers=4),
        edit_json("config.json", fusion_hidden_size=8),
        edit_json("config.json", image_size=96),
        edit_json("config.json", id2label={str(number): "sky" for number in range(8)}),
        edit_json("config.json", hidden_size="32"),
        edit_json("config.json", readout_type="mean"),
        lambda path: (path / "model.safetensors").write_bytes(b"version https") and None,
    ],
)
def test_both_refuse_in_the_same_words(checkpoint: Path, edit: Edit) -> None:
    edit(checkpoint)
    with pytest.raises(ModelError) as expected:
        load_network(checkpoint, torch.float32, DPT)
    with pytest.raises(ModelError) as caught:
        load_source(checkpoint, DPT)
    assert str(caught.value) == str(expected.value)


def test_a_hybrid_s_source_is_transformers_own(tmp_path: Path) -> None:
    source = load_source(save(tmp_path / "tiny", **HYBRID), DPT)
    assert type(source) is DPTForSemanticSegmentation
    Network(source)


def test_weights_of_the_right_type_stay_in_the_mapped_file(checkpoint: Path) -> None:
    """They lie as far from each other as in the file."""

    def apart() -> tuple[int, int]:
        blocks = Network(load_source(checkpoint, DPT)).transformer.blocks
        first, second = (block.query.weight.data_ptr() for block in blocks[:2])
        content = (checkpoint / "model.safetensors").read_bytes()
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        name = "dpt.encoder.layer.{}.attention.attention.query.weight"
        start, end = (header[name.format(index)]["data_offsets"][0] for index in (0, 1))
        return second - first, end - start

    in_memory, in_file = apart()
    assert in_memory == in_file
    edit_weights(halve)(checkpoint)  # these have to be converted
    in_memory, in_file = apart()
    assert in_memory != in_file


def test_what_nobody_needs_is_not_read(checkpoint: Path) -> None:
    source = load_source(checkpoint, DPT)
    meta = {name for name, weight in source.state_dict().items() if weight.is_meta}
    assert meta
    assert all("auxiliary_head" in name or "layers.0.residual_layer1" in name for name in meta)


# The preprocessor.


def test_defaults_of_the_processor_are_those_of_transformers() -> None:
    theirs = {key: getattr(DPTImageProcessorPil, key) for key in DEFAULTS}
    assert theirs == DEFAULTS
    plain = PlainSettings.read({})
    assert plain == PlainSettings.read(dict.fromkeys(DEFAULTS))
    assert plain == PlainSettings(384, 3, 1 / 255, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


PLAIN: list[dict[str, Any]] = [
    {},
    {"size": 480, "feature_extractor_type": "DPTFeatureExtractor"},
    {"size": {"height": 96, "width": 96}, "ensure_multiple_of": 32, "size_divisor": None},
    *({"size": 64, "resample": int(one)} for one in Image.Resampling),
    {"size": 33, "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]},
    {"size": 64, "image_mean": [0, 0.1, 1], "image_std": [1, 0.3, 2], "rescale_factor": 0.0041},
    {"size": 64, "do_rescale": False, "image_mean": [127.5] * 3, "image_std": [127.5] * 3},
    {"size": 64, "do_normalize": False, "do_convert_rgb": True, "do_reduce_labels": True},
    {"size": 64, "do_rescale": False, "do_normalize": False, "_valid_processor_keys": ["images"]},
]


@pytest.mark.parametrize("given", PLAIN)
def test_plain_settings_are_read_as_transformers_reads_them(
    given: dict[str, Any], tmp_path: Path
) -> None:
    assert PlainSettings.read(given) is not None
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(given))
    ours = load_preprocessor(tmp_path)
    theirs = DPTImageProcessorPil.from_dict(given)
    random = np.random.default_rng(3)
    for width, height in [(97, 61), (64, 64), (1, 9), (500, 3)]:
        image = Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8))
        pixels = ours.normalised(torch.from_numpy(ours(image))).numpy()
        expected = theirs(images=image, return_tensors="np")["pixel_values"][0]
        assert np.array_equal(pixels, expected.astype(np.float32))
        assert pixels.dtype == np.float32
    assert ours.side == theirs.size.height
    assert ours.processor.to_dict() == theirs.to_dict()


NOT_PLAIN: list[dict[str, Any]] = [
    {"do_resize": False},
    {"keep_aspect_ratio": True},
    {"do_pad": True},
    {"size": {"height": 64, "width": 96}},
    {"size": {"shortest_edge": 64}},
    {"size": [64, 64]},
    {"size": 64.0},
    {"size": 0},
    {"size": True},
    {"size": 480, "ensure_multiple_of": 50},
    {"ensure_multiple_of": 0},
    {"resample": 99},
    {"resample": "bicubic"},
    {"do_rescale": "no"},
    {"rescale_factor": "1/255"},
    {"image_mean": 0.5},
    {"image_mean": [0.5, 0.5]},
    {"image_std": [0.5, 0.5, 0]},
    {"image_std": [0.5, 0.5, float("nan")]},
    {"do_center_crop": True},
    {"a key of the future": 1},
]


@pytest.mark.parametrize("given", NOT_PLAIN)
def test_settings_that_are_not_plain_are_left_to_transformers(given: dict[str, Any]) -> None:
    assert PlainSettings.read(given) is None


@pytest.mark.parametrize(
    "given", [{"size": [64, 64]}, {"size": 64, "image_mean": 0.25}, {"size": 64, "a key": 1}]
)
def test_what_transformers_reads_gives_the_same_kind_of_preprocessor(
    given: dict[str, Any], tmp_path: Path
) -> None:
    assert PlainSettings.read(given) is None
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(given))
    ours = load_preprocessor(tmp_path)
    image = Image.effect_noise((50, 70), 90).convert("RGB")
    pixels = ours.normalised(torch.from_numpy(ours(image))).numpy()
    expected = ours.processor(images=image, return_tensors="np")["pixel_values"][0]
    assert np.array_equal(pixels, expected)


# The mask of the self-test.


@pytest.mark.parametrize("classes", [1, 32, 40, 300])
@pytest.mark.parametrize("size", [(90, 131), (24, 24), (5, 70)])
def test_the_plain_mask_is_transformers_own(classes: int, size: tuple[int, int]) -> None:
    draw = torch.Generator().manual_seed(classes)
    scores = torch.randn(classes, 24, 24, generator=draw)
    scores[classes // 2] = scores[0]  # a tie wherever one of them wins
    mask, expected = (
        plain_mask(scores, size),
        transformers_mask(DPTImageProcessorPil(), copy.copy(scores), size),
    )
    assert np.array_equal(mask, expected)
    assert mask.dtype == expected.dtype == (np.uint8 if classes <= 256 else np.uint16)


# The revision of a folder.


def test_the_hash_is_that_of_the_weights(checkpoint: Path) -> None:
    weights = (checkpoint / "model.safetensors").read_bytes()
    found = Checkpoint(checkpoint, "tiny")
    found.begin_sha256()
    found.begin_sha256()  # once is enough
    assert found.sha256 == hashlib.sha256(weights).hexdigest()


def test_a_commit_needs_no_hash(tmp_path: Path) -> None:
    known = Checkpoint(tmp_path, "tiny", revision="c" * 40)
    known.begin_sha256()
    assert "_sha256" not in vars(known)


def test_weights_that_cannot_be_read_say_so_where_the_hash_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"a": "gone"}}')
    found = Checkpoint(tmp_path, "tiny")
    found.begin_sha256()
    with pytest.raises(ModelError, match="gone is missing"):
        _ = found.sha256


# All together.


def test_a_worker_serves_the_demo_without_transformers() -> None:
    code = """
import sys
from PIL import Image
import maskq_worker.broker.bootstep, maskq_worker.broker.tasks
from maskq_worker.model import load_segmenter, run_self_test, warm_up
from maskq_worker.settings import WorkerSettings
segmenter = load_segmenter(WorkerSettings(model="demo"))
run_self_test(segmenter)
warm_up(segmenter)
[output] = segmenter.run([segmenter.prepare(Image.new("RGB", (40, 30)))])
assert output.mask.shape == (30, 40), output
slow = {"transformers", "huggingface_hub", "torch._dynamo", "torch._inductor", "scipy", "sympy"}
print(*slow & sys.modules.keys())
"""
    answer = subprocess.run(
        [sys.executable, "-c", code], check=True, timeout=120, capture_output=True, text=True
    )
    assert answer.stdout.strip() == ""
