"""Copies of a job's files under the names that its caller chose (`output_name`).

docs/decisions/named-copies.md has the reasons.
"""
