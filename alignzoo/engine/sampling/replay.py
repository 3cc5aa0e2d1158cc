"""A step that is launched as a whole: recorded once on a GPU, and replayed without Python."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

import torch
from torch import Tensor

SYNC = "synchronizing CUDA operation"  # in the words of torch


class Replayed:
    """A function that reads and writes the same places at every call.

    The first call runs as it is written, so that libraries set themselves up and casts that
    autocast keeps are made; the second is recorded as a CUDA graph. What is returned is overwritten
    by the next call. The graph reads the weights from where they lie while it is recorded, so it
    must not live longer than a batch. Elsewhere than on CUDA every call runs as it is written.
    """

    def __init__(self, step: Callable[[], Tensor], device: torch.device) -> None:
        self.step, self.device = step, device
        self.ready = False
        self.refused = "" if device.type == "cuda" else f"it runs on {device.type}"
        self.graph: torch.cuda.CUDAGraph | None = None
        self.output: Tensor | None = None

    def __call__(self) -> Tensor:
        """What the step returns. One that cannot be recorded is run, and `refused` says why."""
        if self.graph is None and not self.refused:
            return self._prepared()
        if self.graph is None or self.output is None:
            return self.step()
        self.graph.replay()
        return self.output

    def _prepared(self) -> Tensor:
        try:
            if self.ready:
                self._record()
                return self()
            self.ready = True
            with _aside(self.device), _without_waiting():
                return self.step()
        except Exception as failure:  # the step changes nothing before its end
            said = "its step waits for the device" if SYNC in str(failure) else ""
            self.refused = said or f"{type(failure).__name__} came up when its step was recorded"
            return self.step()

    def _record(self) -> None:
        graph = torch.cuda.CUDAGraph()
        with _aside(self.device):
            graph.capture_begin(capture_error_mode="thread_local")  # others may use the device
            try:
                self.output = self.step()
            finally:
                graph.capture_end()
        self.graph = graph


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


@contextmanager
def _without_waiting() -> Iterator[None]:
    """An error for what waits for the device, which would spoil a record and what follows it."""
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the mode is a prototype
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.cuda.set_sync_debug_mode(before)
