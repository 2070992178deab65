"""The embedded servers of the stack: Redis and S3."""
