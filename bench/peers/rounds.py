"""The rounds: every contender has its turn in each, in rotating order, alone on the cores."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from bench.peers import scenes
from bench.peers.contender import Contender
from bench.peers.forwards import Forwards
from bench.peers.plain import Mask

SMALL_MEGAPIXELS = 0.3  # of warm-up: what is set up once does not depend on an image's size
WARM_UP = 12  # images, after the first and only where a forward takes less than
QUICK_S = 1.0


class Rounds:
    """rates: images per second by contender, a figure a round; equal: the worst share of pixels."""

    def __init__(
        self,
        contenders: Sequence[Contender],
        forwards: Forwards,
        s3: Any,
        *,
        bodies: Sequence[bytes],
        masks: Sequence[Mask],
        images: int,
        together: bool,
    ) -> None:
        """together: all servers stay up from the first round to the last; else each is started for
        its turn, and ended after it."""
        self._contenders = contenders
        self._forwards = forwards
        self._s3 = s3
        self._bodies = bodies
        self._small = scenes.jpegs(1, SMALL_MEGAPIXELS)[0]
        self._masks = masks
        self._images = images
        self._together = together
        self._loads = 0
        self.rates: dict[str, list[float]] = {one.name: [] for one in contenders}
        self.equal: dict[str, float] = {one.name: 1.0 for one in contenders}

    def measure(self, count: int) -> Iterator[str]:
        """Yields a line of text for each turn."""
        try:
            if self._together:
                yield from self._start_all()
            for number in range(count):
                self._forwards.measure()
                first = number % len(self._contenders)
                for contender in [*self._contenders[first:], *self._contenders[:first]]:
                    with self._turn(contender):
                        rate = self._timed(contender)
                    yield f"round {number + 1}: {contender.name:<12} {rate:.4g} images/s"
        finally:
            for contender in self._contenders:
                contender.stop()

    def _start_all(self) -> Iterator[str]:
        for contender in self._contenders:
            self._start(contender)
            contender.pause()
            yield f"{contender.name} is up and warm"

    @contextmanager
    def _turn(self, contender: Contender) -> Iterator[None]:
        if self._together:
            contender.go_on()
            yield
            contender.pause()
        else:
            self._start(contender)
            yield
            contender.stop()

    def _start(self, contender: Contender) -> None:
        """Ready and warm."""
        contender.start()
        contender.prepare()
        self._warm(contender, contender.setup.processes)
        if self._forwards.slowest_s() < QUICK_S:
            self._warm(contender, WARM_UP)

    def _timed(self, contender: Contender) -> float:
        keys = self._upload(contender, self._bodies, self._images)
        began = time.perf_counter()
        masks = contender.run(keys)
        rate = len(keys) / (time.perf_counter() - began)
        share = scenes.equal_share(self._s3, contender.setup.bucket, masks, self._masks)
        self.rates[contender.name].append(rate)
        self.equal[contender.name] = min(share, self.equal[contender.name])
        return rate

    def _warm(self, contender: Contender, count: int) -> None:
        contender.run(self._upload(contender, [self._small], count))

    def _upload(self, contender: Contender, bodies: Sequence[bytes], count: int) -> list[str]:
        """Keys that nobody had before."""
        self._loads += 1
        prefix = f"{contender.name.replace(':', '-')}/{self._loads}"
        return scenes.upload(self._s3, contender.setup.bucket, prefix, bodies, count)
