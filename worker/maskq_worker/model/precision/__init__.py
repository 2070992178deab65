"""Half precision and 8 bits: how far their masks are from float32's, and what a worker makes of it.

- choice.py: which networks a worker loads (MASKQ_DTYPE, MASKQ_PRECISION)
- calibrate.py: measure a network in half precision (`maskq weights calibrate`)
- measure.py: compare two networks' masks: agreement, and the bound of uncertain pixels
- store.py: keep the figures, and refuse those that do not fit
- rating.py: which masks are computed again
- backends.py, devices.py: load one network to a device
- processor.py: which arithmetic this CPU is fast in
"""
