"""A step that is launched as a whole: recorded once on a GPU, and replayed without Python."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

import torch


class Replayed:
    """Runs a step that reads and writes the same places every time, and returns nothing.

    The first call runs as it is written, so that libraries set themselves up; the second is
    recorded as a CUDA graph. A graph reads the weights from where they lay when it was recorded, so
    it must not live longer than a batch. Elsewhere than on CUDA every call runs as it is written.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.ready = False
        self.refused = "" if device.type == "cuda" else f"it runs on {device.type}"
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, step: Callable[[], object]) -> None:
        """Do the step. One that cannot be recorded is run, and `refused` says why.

        It is handed in every time, because whoever keeps a step of his own is freed late.
        """
        if self.graph is None and self.ready and not self.refused:
            try:
                self.graph = self._recorded(step)
            except Exception as failure:  # what was to be recorded has not been done
                self.refused = f"{type(failure).__name__} came up when its step was recorded"
        if self.graph is not None:
            self.graph.replay()
        elif self.refused:
            step()
        else:
            with _aside(self.device):
                step()
            self.ready = True

    def _recorded(self, step: Callable[[], object]) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        with _aside(self.device):
            graph.capture_begin(capture_error_mode="thread_local")  # others may use the device
            try:
                step()
            finally:
                graph.capture_end()
        return graph


@cache
def _side(device: torch.device) -> torch.cuda.Stream:
    """One for all, as libraries keep a workspace for each."""
    return torch.cuda.Stream(device)


@contextmanager
def _aside(device: torch.device) -> Iterator[None]:
    """On a stream beside the current one, in order with it; nothing is recorded on that one."""
    here, side = torch.cuda.current_stream(device), _side(device)
    side.wait_stream(here)
    with torch.cuda.stream(side):
        yield
    here.wait_stream(side)


def waits(step: Callable[[], object]) -> bool:
    """Whether a step waits for the device, which would spoil a record and what follows it."""
    if not torch.cuda.is_available():
        step()
        return False
    before = torch.cuda.get_sync_debug_mode()
    _notice_waiting("error")
    try:
        step()
    except RuntimeError as error:
        if "synchronizing CUDA operation" not in str(error):
            raise
        return True
    finally:
        _notice_waiting(before)
    return False


def _notice_waiting(mode: str | int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is a prototype
        torch.cuda.set_sync_debug_mode(mode)
