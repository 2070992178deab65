"""Prints the document."""

import sys

from maskq.contract.asyncapi import text

sys.stdout.write(text())  # noqa: TID251 - our own text
