"""Operations that need access to Redis: API keys, models, deleting jobs."""
