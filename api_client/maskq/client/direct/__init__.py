"""The operations of a client that reaches Redis and S3 itself."""
