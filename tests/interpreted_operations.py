"""The faster layers' Triton kernels in Triton's interpreter, beside torch. Prints "ok" at the end.

The interpreter must be chosen before Triton is imported, so this is a process of its own.
"""

from __future__ import annotations

import os

os.environ["TRITON_INTERPRET"] = "1"

import torch
from torch import nn

from maskq_worker.model.cuda.fused.cuda_operations import CudaOperations, check
from maskq_worker.model.cuda.fused.operations import SplitClassifier, TorchOperations

CPU = torch.device("cpu")
SHAPES = [(1, 3, 1, 1), (2, 5, 1, 4), (1, 7, 6, 1), (2, 150, 9, 11), (1, 256, 4, 5)]


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def upsampling(fast: CudaOperations, plain: TorchOperations) -> None:
    for shape in SHAPES:
        for values in (draw(*shape), draw(*shape).contiguous(memory_format=torch.channels_last)):
            ours, theirs = fast.upsample(values), plain.upsample(values)
            assert ours.shape == theirs.shape, shape
            assert ours.is_contiguous(memory_format=torch.channels_last)
            torch.testing.assert_close(ours, theirs, rtol=0, atol=3e-6, msg=str(shape))


def sums(fast: CudaOperations, plain: TorchOperations) -> None:
    for shape in SHAPES:
        values, shortcut, other = (draw(*shape) + number for number in range(3))
        bias = draw(shape[1])
        for third in (None, other):
            for ours, theirs in zip(
                fast.add_maps(values, bias, shortcut, third, rectified=True),
                plain.add_maps(values, bias, shortcut, third, rectified=True),
                strict=True,
            ):
                torch.testing.assert_close(ours, theirs, msg=str(shape))
    broken = draw(1, 5, 2, 2)
    broken[0, 3, 1, 1] = torch.nan
    _, positive = fast.add_maps(broken, bias[:5], broken, rectified=True)
    assert positive is not None
    assert positive.isnan().sum() == 1


def norms(fast: CudaOperations, plain: TorchOperations) -> None:
    for channels in (1, 24, 768, 1024):
        norm = nn.LayerNorm(channels, eps=1e-12)
        norm.weight.data, norm.bias.data = draw(channels), draw(channels)
        tokens, change = draw(2, 3, channels), 100 + 10 * draw(2, 3, channels)
        with torch.inference_mode():
            ours = fast.add_and_normalise(tokens, change, norm)
            theirs = plain.add_and_normalise(tokens, change, norm)
        for one, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4, msg=str(channels))


def classifiers(fast: CudaOperations) -> None:
    for classes, dtype in ((1, torch.float16), (19, torch.bfloat16), (150, torch.float16)):
        classifier = nn.Conv2d(24, classes, 1)
        split = SplitClassifier.of(classifier, dtype)
        places = draw(37, 24).to(dtype).float()
        with torch.inference_mode():
            scores = fast.add_parts(places @ split.parts.float().t(), split)
            expected = classifier(places.t()[None, :, :, None])[0, :, :, 0].t()
        torch.testing.assert_close(scores, expected, rtol=0, atol=3e-6, msg=str(classes))


def main() -> None:
    torch.set_num_threads(1)
    fast, plain = CudaOperations(), TorchOperations()
    for dtype in (torch.float16, torch.bfloat16):
        check(fast, CPU, dtype)
    upsampling(fast, plain)
    sums(fast, plain)
    norms(fast, plain)
    classifiers(fast)
    print("ok")


if __name__ == "__main__":
    main()
