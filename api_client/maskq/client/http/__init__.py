"""The operations of a client that reaches a deployment by its gateway."""
