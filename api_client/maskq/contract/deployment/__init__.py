"""What a deployment says of itself: its workers, queues and settings."""
