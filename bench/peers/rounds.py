"""The rounds: every contender has its turn in each, in rotating order, alone on the cores."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from bench.peers import scenes
from bench.peers.contender import Contender
from bench.peers.figures import Seen
from bench.peers.forwards import Forwards
from bench.peers.plain import Mask

SMALL_MEGAPIXELS = 0.3  # of warm-up: what is set up once does not depend on an image's size
WARM_UP = 12  # images, after the first and only where a forward takes less than
QUICK_S = 1.0


class Rounds:
    """seen: what was measured, by contender."""

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
        self.seen = {one.name: Seen() for one in contenders}

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
                    yield f"round {number + 1}: {contender.name:<14} {rate:.4g} images/s"
        finally:
            for contender in self._contenders:
                contender.stop()

    def starts(self, count: int) -> Iterator[str]:
        """Starts each contender `count` times, by turns, and no load. Yields a line for each."""
        for number in range(count):
            for contender in self._contenders:
                try:
                    self._start(contender)
                finally:
                    contender.stop()
                seconds = self.seen[contender.name].starts_s[-1]
                yield f"start {number + 1}: {contender.name:<14} {seconds:.1f} s to the first mask"

    def _start_all(self) -> Iterator[str]:
        """Twice each, to see what the second start takes."""
        for contender in self._contenders:
            if self._stays_up(contender):
                self._start(contender)
                contender.stop()
                self._start(contender)
                contender.pause()
                yield f"{contender.name} is up and warm"

    @contextmanager
    def _turn(self, contender: Contender) -> Iterator[None]:
        if self._stays_up(contender):
            contender.go_on()
            yield
            contender.pause()
        else:
            self._start(contender)
            yield
            contender.stop()

    def _stays_up(self, contender: Contender) -> bool:
        return self._together and contender.stays_up

    def _start(self, contender: Contender) -> None:
        """Ready and warm. The time until the first mask is noted."""
        keys = self._upload(contender, [self._small], 1)
        began = time.perf_counter()
        contender.start()
        contender.run(keys)
        self.seen[contender.name].starts_s.append(time.perf_counter() - began)
        contender.prepare()
        if contender.setup.processes > 1:
            self._warm(contender, contender.setup.processes)
        if self._forwards.slowest_s() < QUICK_S:
            self._warm(contender, WARM_UP)

    def _timed(self, contender: Contender) -> float:
        keys = self._upload(contender, self._bodies, self._images)
        began, cpu_before_s = time.perf_counter(), contender.cpu_s()
        masks = contender.run(keys)
        rate = len(keys) / (time.perf_counter() - began)
        seen = self.seen[contender.name]
        seen.rates.append(rate)
        seen.cpu_ms.append(1e3 * (contender.cpu_s() - cpu_before_s) / len(keys))
        seen.peak_mib.append(contender.peak_mib())
        share = scenes.equal_share(self._s3, contender.setup.bucket, masks, self._masks)
        seen.equal = min(share, seen.equal)
        seen.uncertain = contender.uncertain_share
        return rate

    def _warm(self, contender: Contender, count: int) -> None:
        contender.run(self._upload(contender, [self._small], count))

    def _upload(self, contender: Contender, bodies: Sequence[bytes], count: int) -> list[str]:
        """Keys that nobody had before."""
        self._loads += 1
        prefix = f"{contender.name.replace(':', '-')}/{self._loads}"
        return scenes.upload(self._s3, contender.setup.bucket, prefix, bodies, count)
