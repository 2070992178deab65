"""What `maskq up` and `maskq demo` do."""
