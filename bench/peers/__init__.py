"""maskq beside its peers: same weights, images, machine and run. `python -m bench.peers`, `make peers`.

The load is offline: all images are asked for at once, and the clock stops when the last mask is in the
store. Every contender reads the same JPEGs from the same S3 server and writes a PNG of class ids to
it, computes in exact float32, and has all cores. They take turns, in rotating order. While one works,
the others wait without work: LitServe, which polls, is stopped with SIGSTOP; Ray Serve, whose services
are never idle, is started for each of its turns; above 2 megapixels every contender is. Each has a
Redis database of its own. Every mask is compared with transformers' own, made in the measuring
process: a fast wrong answer shows. In the same run both networks' bare forwards are timed.

Also printed are the processor time an image and the peak memory of all processes of a contender, and
the seconds from the start of its process to its first mask, for a first and a second start. The files
are in the page cache both times. `--starts N` measures N starts of each by turns and no load. `python
-m bench.startup` splits maskq's own start into steps.

maskq      one worker process as `maskq up` starts it, every setting at its default.
maskq-int8 the same with MASKQ_DTYPE=int8, only where `--only` names it: its masks differ. So with
           maskq-bf16 (MASKQ_PRECISION=fast) and maskq-certified.
celery     the naive task (celery_task.py): prefork, transformers' processor, network and
           post-processing, boto3, result backend Redis.
ray        Ray Serve's asynchronous inference (ray_server.py): a deployment that consumes Celery's
           queue by the Celery adapter, one task at a time in each replica.
litserve   a LitAPI with max_batch_size and batch_timeout (litserve_server.py), called by many threads.
bentoml    a service with a batchable API (bentoml_service.py), called by as many. `--batch 1` turns
           batching off in both, which on a CPU may be faster.
bentoml-tasks  BentoML's task queue (bentoml_tasks.py): all images are submitted, then the client asks
           for each task until it is done, as BentoML's documentation does.

A name may say how many processes share the cores: `celery:2` has two, each with half of torch's
threads. LitServe's documentation advises that on a CPU, and a prefork pool does so by default; it
needs as many times the memory, and at 12 megapixels the post-processing alone takes 7 GB of each.

Granted to the peers, although a first version of such a program has none of it:
- the model is loaded once, after the fork, in float32 (`auto` takes a checkpoint's float16, slow here),
  and runs in `torch.inference_mode`; transformers picks `sdpa` for the attention by itself;
- torch's threads are set to the cores a process has, and wait awake for as short as maskq's do;
- Celery's time limit for a child's start is raised;
- S3 clients are kept open; images of a batch are fetched, and masks encoded and stored, by threads;
- PNGs are compressed as quickly as maskq's (level 1), not at Pillow's default of 6;
- requests carry the key of an image, never its bytes, and nobody authenticates, retries or times out;
- warm-up outside of the clock, and BentoML's dispatcher is past its training phase.
Not granted: what neither the peers nor transformers do by themselves (torch.compile, another network,
another post-processing), and lower precision.

A peer that is less than 2 % away, or that wins a round and loses another, is a tie. What the peers lack
beside maskq (a ledger, exactly once, events, priorities) is not measured here, only paid for by it.
"""
