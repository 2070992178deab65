"""Redis' own processor time: a figure that does not depend on what else the machine does."""

from __future__ import annotations

from collections.abc import Callable

from redis import Redis


def main_thread_us(redis: Redis) -> float:
    """Microseconds of processor time that Redis' main thread, which runs all commands, has used."""
    used = redis.info("cpu")
    seconds = float(used["used_cpu_user_main_thread"]) + float(used["used_cpu_sys_main_thread"])
    return seconds * 1e6


def us_each(redis: Redis, work: Callable[[], object], count: int) -> float:
    """Microseconds of the main thread for each of `count` things that `work` does."""
    reading = -main_thread_us(redis) + main_thread_us(redis)  # what the look itself takes
    began = main_thread_us(redis)
    work()
    return max(0.0, main_thread_us(redis) - began - reading) / count
