"""Metrics of a deployment and of a process, for Prometheus; spans for OpenTelemetry.

series      what a series is: its name, type, labels and meaning
deployment  the series of the whole deployment, read from the ledger
server      the HTTP server of a process that has no other
settings    the settings of processes that stay up
tracing     spans, and the context that travels with a job
trace_export  sends the spans of a process of ours
"""
