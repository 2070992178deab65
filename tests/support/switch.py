"""One address that leads to another server from a moment on, as DNS or a service of Kubernetes does."""

from __future__ import annotations

from chaos.half_open import Proxy


class Switch(Proxy):
    """Connections that exist stay where they lead; new ones go to the new target."""

    def lead_to(self, port: int) -> None:
        self._target = ("127.0.0.1", port)
