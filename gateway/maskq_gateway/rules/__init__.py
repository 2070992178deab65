"""Rules: which objects start which jobs."""
