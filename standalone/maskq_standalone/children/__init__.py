"""Child processes of the stack: start, ready check, restart and end."""
