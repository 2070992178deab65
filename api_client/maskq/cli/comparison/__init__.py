"""How much two models differ: `maskq compare`, and the report of `maskq shadow`.

masks compares two masks, findings adds up pairs of results, pairs gets them from the queue.
"""
