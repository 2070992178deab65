"""Which seeds draw which scenes: what training saw is never what a score is taken on."""

from __future__ import annotations

TRAINING = range(10_000_000, 2_000_000_000)  # the trainer's alone


def held_out(seed: int, number: int) -> int:
    """The scene `number` of a caller's `seed`. Raises ValueError where it would meet training."""
    scene = seed * 1000 + number
    if not 0 <= scene < TRAINING.start:
        raise ValueError(f"seed {seed} is out of range; choose 0 to {TRAINING.start // 1000 - 1}")
    return scene
