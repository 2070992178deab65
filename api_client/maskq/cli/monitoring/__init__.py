"""Commands that show the state of a deployment to programs."""
