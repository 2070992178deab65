"""Images of other libraries as files that workers read."""
