"""What a GPU does with this: `python -m bench.gpu`, one command, under nine minutes, no network.

ceiling     the card itself: matrix products, copies; with them the compute floor of every network
correct     scores beside transformers' on the same card, masks beside torch's, graphs beside eager
operations  the operations of the faster layers beside torch's
forward     images/s of the bare forward for batch 1 to 32: transformers, ours, ours with graphs
masks       a mask at the image's own size: the kernel, torch's bands, transformers' post-processing
agreement   pixels that fp16 and bf16 decide as float32 does, on drawn scenes
profile     where a batch's time goes, by kernel
choices     what is still open: other ways for single layers, timed side by side
batcher     the model thread fed from memory: what is lost without store and queue
service     end to end with 1, 2, 3 processes on the card, and E = that rate / the bare forward's
naive       the Celery task that one writes first, on the same card

The network is DPT-Large's shape with random weights (344 M parameters, 480x480), for agreement also
the demo checkpoint. Each part has a process of its own, and after each bench/results/gpu-CARD.json is
written, so that what one part breaks does not take the others along. `--dry-run --device cpu` runs
every line that needs no GPU, with a network of a few kilobytes, and writes nothing.
"""
