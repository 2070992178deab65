"""The worker's access to object stores, and circuit breakers for those that do not answer."""
