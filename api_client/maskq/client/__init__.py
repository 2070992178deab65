"""What callers hold: Client, Job, Batch, Result, and the same awaited. One core (flow.py) for both."""
