"""The worker: a Celery process that holds one model on one device and runs jobs from the ledger."""
