"""MLPerf LoadGen drives the service: `python -m bench.loadgen --model demo|large --scenario NAME …`.

LoadGen (`mlcommons-loadgen`, installed by `make peers`) decides when an image is asked for, and its
verdict on the run is printed as it is. The system under test is the client, Redis, the S3 server and
one worker process. An image is a sample; a sample is complete when its job has succeeded and its mask
is in the store. Drawn scenes of 640x480 px are uploaded before LoadGen's clock starts.

Offline       one query with all samples: samples a second
Server        Poisson arrivals at 80 % (`--load`) of the Offline rate of the same run; at most 1 % of
              the queries may take longer than `--bound` bare forwards
SingleStream  one query after another: the 90th percentile of the latency

The scenarios follow MLPerf's rules, with the seeds of the package's current round. Four things are
not MLPerf's: the model, the bound of Server, the least duration (`--min-seconds`, 60 s instead of
600 s) and the number of queries.
LoadGen's early stopping accepts a percentile only with enough queries: of 1,500 at most 6 may be above
the bound of the 99th. With the round's seed the first 1,500 queries also arrive 4.5 % faster than the
target, so Server asks for 3,000. A simulated server of two lanes, each of which takes two forwards an
image, has 6 of them above 15 forwards. One whose E (rate end to end over the bare forward's) is 0.95
has 9, 0.9 has 15, 0.85 has 28.

The bare forward of the same weights is measured before and after each scenario, in a process that does
nothing else (bench/scenarios/bare.py). Beside Server stands a simulation: LoadGen's own arrivals at a
server that takes one bare forward an image and nothing else.

The figures are written to bench/results/loadgen-MODEL.json, LoadGen's logs to
bench/results/loadgen/MODEL/SCENARIO.
"""
