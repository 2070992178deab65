"""maskq shadow: run a share of the jobs again with another checkpoint, and compare the masks.

The second runs belong to a deployment of their own: another key prefix in Redis, another folder in the
bucket. So callers see no event, webhook, record, quota or object of them.
"""
