"""Waiting for jobs: one subscribed Redis connection serves every wait of a client."""
