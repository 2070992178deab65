"""`maskq submit --recursive`: the images of an S3 prefix, a folder or a list.

sources finds the images, manifest records them, run submits and waits, progress reports.
"""

from maskq.cli.bulk.run import RunFlags, submit_recursive

__all__ = ["RunFlags", "submit_recursive"]
