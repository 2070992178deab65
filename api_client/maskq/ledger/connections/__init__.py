"""Connections to Redis: how its URL is read, their pools, and what the service requires of a server."""
