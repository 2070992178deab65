"""Our own network in 8 bits, by OpenVINO, for CPUs. It serves if its masks agree with float32's.

In float32 OpenVINO is no faster than torch, so it is used for 8 bits only.

- load.py: build the 8-bit network (`quantize`), and load it in a worker (`load_openvino`)
- convert.py: convert torch's network to OpenVINO's
- backend.py: the backend
- int8.py: calibrate with images, check with others
- cache.py: store 8-bit networks, and refuse one that does not fit
- runtime.py: OpenVINO and NNCF, which are optional packages
"""
