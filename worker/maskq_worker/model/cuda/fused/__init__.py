"""The network in half precision with fewer passes over memory; docs/gpu.md names what each one saves.

- network.py: puts the faster layers into a network
- layers.py: the faster layers
- operations.py: what they are made of, by torch alone
- cuda_operations.py: the same operations by Triton, cuDNN and cuBLAS, where they work on the GPU
- kernels.py: the Triton kernels
"""
