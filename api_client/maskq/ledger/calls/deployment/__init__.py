"""Calls of views: the live workers, and a deployment at a glance."""
