"""Metrics of a run in TensorBoard, Weights & Biases, MLflow and trackio, beside metrics.jsonl."""

from __future__ import annotations

from alignzoo import Tracker, hookimpl
from alignzoo_trackers.mlflow import MLflow
from alignzoo_trackers.tensorboard import TensorBoard
from alignzoo_trackers.trackio import Trackio
from alignzoo_trackers.wandb import WandB


@hookimpl
def register_trackers() -> list[type[Tracker]]:
    """One tracker per library; importing them imports no library."""
    return [TensorBoard, WandB, MLflow, Trackio]
