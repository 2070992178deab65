"""`maskq submit --recursive`: images of a place, a folder or a list, by the thousand.

sources finds them, manifest remembers them, run submits and waits, progress tells.
"""

from maskq.cli.bulk.run import Asked, submit_recursive

__all__ = ["Asked", "submit_recursive"]
