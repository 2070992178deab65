"""A deployment in memory: jobs, events, files, and the client operations on them."""
