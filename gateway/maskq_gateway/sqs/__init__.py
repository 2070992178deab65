"""Notifications read from an SQS queue."""
