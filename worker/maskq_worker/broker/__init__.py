"""Everything that touches Celery: the app, its transport over Redis, its pool and its tasks."""
