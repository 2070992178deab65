"""How jobs share the workers: settings of tenants, and what a job waits for."""
