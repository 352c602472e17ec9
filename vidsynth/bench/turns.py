"""Trainings that take turns, so that they see the same machine, each on a clock of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from time import perf_counter

from vidsynth.report import Reporter

Pause = Callable[[], None]
"""To be called between steps: it returns at once, or when the next turn begins."""


class InTurns:
    """Work that goes on for a while when it is told to, and waits in between."""

    def __init__(self, work: Callable[[Pause], None]) -> None:
        """`work` runs in a thread of its own and calls the function it is given now and then."""
        self.done = False
        self._may_go, self._waits = threading.Semaphore(0), threading.Semaphore(0)
        self._until = 0.0
        self._stopping = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(work,), daemon=True)

    def turn(self, seconds: float) -> None:
        """Let it work for about so long. Raises what the work raised."""
        if self.done:
            return
        self._until = perf_counter() + seconds
        if self._thread.ident is None:
            self._thread.start()
        else:
            self._may_go.release()
        self._waits.acquire()
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """End it at its next pause, and wait for that."""
        self._stopping = True
        self._may_go.release()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self, work: Callable[[Pause], None]) -> None:
        try:
            work(self._pause)
        except _Stopped:
            pass
        except BaseException as error:  # raised again where the turn was given
            self._error = error
        self.done = True
        self._waits.release()

    def _pause(self) -> None:
        if self._stopping:
            raise _Stopped
        if perf_counter() >= self._until:
            self._waits.release()
            self._may_go.acquire()
            if self._stopping:
                raise _Stopped


class _Stopped(BaseException):
    """Unwinds the work."""


def in_turns(
    works: Iterable[Callable[[Pause], None]], slice_seconds: float, reporter: Reporter
) -> None:
    """Do all the work to its end, so many seconds of each in turn."""
    arms = [InTurns(work) for work in works]
    try:
        with reporter.step("training in turns", unit="seconds") as step:
            began = perf_counter()
            while not all(arm.done for arm in arms):
                for arm in arms:
                    arm.turn(slice_seconds)
                    step.update(perf_counter() - began)
    finally:
        for arm in arms:
            arm.stop()
