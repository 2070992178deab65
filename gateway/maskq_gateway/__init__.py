"""Uploads start jobs: notifications of an object store, by HTTP or from an SQS queue."""
