"""Commands about how jobs share the workers: tenants, why."""
