"""Ctrl-C between two steps: the first one waits until what is in flight is committed, the second does not."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def deferred_interrupts() -> Iterator[Callable[[], None]]:
    """Hold SIGINT and SIGTERM back; gives a function that raises KeyboardInterrupt if one has come.

    An interrupt that is raised at any moment may also come up where Python has to swallow it, such as in the
    callback of a weak reference. In threads other than the main one nothing is held back.
    """
    came = threading.Event()

    def check() -> None:
        if came.is_set():
            raise KeyboardInterrupt

    def hold(number: int, frame: FrameType | None) -> None:
        came.set()
        signal.signal(number, signal.default_int_handler)

    if threading.current_thread() is not threading.main_thread():
        yield check
        return
    before = {number: signal.signal(number, hold) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield check
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
