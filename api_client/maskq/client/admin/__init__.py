"""What only clients with access to Redis can do: API keys, models, and deleting jobs for good."""
