"""What commands print: standard streams, tables, progress and the outcomes of jobs."""
