"""Our own network in 8 bits, by OpenVINO, for CPUs: where its masks agree with float32's.

In float32 OpenVINO is no faster than torch here, so there it serves nothing.

- convert.py: from torch's network to OpenVINO's
- backend.py: what serves it
- int8.py: calibrated from images, checked on others
- cache.py: where 8-bit networks lie, and when one is refused
- runtime.py: OpenVINO and NNCF, which are optional

`load_openvino` is what a worker calls, `quantize` what builds the 8-bit network before.
"""

from __future__ import annotations

from maskq_worker.model.openvino.backend import OpenVINO
from maskq_worker.model.openvino.cache import Record
from maskq_worker.model.openvino.load import load_openvino, quantize

__all__ = ["OpenVINO", "Record", "load_openvino", "quantize"]
