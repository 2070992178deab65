"""How many jobs one ledger carries, what grows with a deployment, and what comes after one ledger.

docs/scaling.md has the figures.
"""
