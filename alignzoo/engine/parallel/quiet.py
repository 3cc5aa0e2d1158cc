"""Nothing of what libraries print stands between our own lines."""

from __future__ import annotations

import os
import warnings


def silence_libraries() -> None:
    """Called before models are loaded: no bars, reports and warnings of others."""
    import torch
    from transformers.utils import logging

    logging.disable_progress_bar()
    if not torch.cuda.is_available():  # DeepSpeed, which Accelerate imports, would warn of it
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    if not os.environ.get("ALIGNZOO_TRACE"):
        logging.set_verbosity_error()  # what matters in a load report is said by whoever loads
        warnings.filterwarnings("ignore", category=FutureWarning)
