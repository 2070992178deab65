"""What the deployment does now, for those who run it."""
