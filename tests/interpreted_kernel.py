"""The mask kernel in Triton's interpreter, which must be chosen before Triton is imported.

Reads a line of JSON for each mask and answers with one, when the arrays are written.
"""

from __future__ import annotations

import json
import os
import sys

os.environ["TRITON_INTERPRET"] = "1"

import numpy as np
import torch

from maskq_worker.model.cuda.masks import Tile, TritonMaskKernel


def main() -> None:
    torch.set_num_threads(1)
    np.seterr(all="ignore")  # NaN and infinities are asked for
    for line in sys.stdin:
        asked = json.loads(line)
        scores = torch.from_numpy(np.load(asked["scores"]))
        if asked["by_place"]:
            scores = scores.permute(1, 2, 0).contiguous().permute(2, 0, 1)
        kernel = TritonMaskKernel(Tile(*asked["tile"]))
        drawn = kernel(scores, tuple(asked["size"]), confidence=asked["confidence"])
        sure = torch.zeros(0) if drawn.confidence is None else drawn.confidence
        arrays = {"mask": drawn.mask, "unsound": drawn.unsound, "confidence": sure}
        np.savez(asked["answer"], **{name: array.numpy() for name, array in arrays.items()})
        print("done", flush=True)


if __name__ == "__main__":
    main()
