"""The metrics and spans of one worker process.

counters  what the process counts while it works
series    its series for Prometheus
"""
