"""Our own network on an NVIDIA GPU; docs/gpu.md says what it does there and what it falls back to.

- load.py: choose the precision, make the backend
- backend.py: the backend
- graphs.py, buckets.py: the forward as CUDA graphs, and which graphs a batch runs through
- masks.py, kernel.py: masks on the GPU, by Triton's kernel or by torch
- transfer.py: copies to and from the GPU
- normalise.py, coarse.py: the network's first and last step
- precision.py: which floating point type a card computes in
- faults.py: errors after which the GPU is lost
"""
