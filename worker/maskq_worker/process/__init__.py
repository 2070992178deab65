"""Worker processes: their start, their share of the machine, their health and their end."""
