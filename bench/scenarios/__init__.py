"""The service under load: `python -m bench.scenarios offline|server|burst|mixed|null|memory|all`.

offline   all jobs at once: the rate, and its ratio to the bare forward of the same weights
server    Poisson arrivals, open loop: latency by stage, beside a queue simulation of the same arrivals
burst     nothing, then many at once: how long until they are done, beside the least it could take
mixed     images of 0.2 to 24 megapixels: what small ones wait for large ones
null      a model whose forward is free: what the rest costs, beside the ceilings of store and Celery
memory    the worker's resident memory over thousands of jobs

Each runs a stack of its own (Valkey, S3 server, worker processes) on this machine, prints a table and
writes bench/results/scenarios-*.json and plots. All figures of a scenario are of one run.
"""
