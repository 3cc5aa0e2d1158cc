"""The trainer's weights for a program that reads checkpoints, and what they say about a text."""

from __future__ import annotations

import copy
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from alignzoo.contract.errors import DataError, PluginError, TrainingError
from alignzoo.engine.models.context import context_of

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

PREFIX = "weights-"  # begins the name of every folder that is handed over


@dataclass(frozen=True)
class Handover:
    """A copy of a model on CPU, filled by `take`; its head is a tensor of its own.

    Whoever reads checkpoints into a running server may not know that a head is tied to the
    embeddings, and keep the old one; a head that is always written cannot be missed. The copy
    needs nothing of the trainer but the weights that it streams, so it works the same when no
    process holds a whole model.
    """

    plain: PreTrainedModel

    @staticmethod
    def of(model: PreTrainedModel, dtype: torch.dtype) -> Handover:
        """For models of this kind; the weights are not read, and no random number is drawn."""
        config = copy.deepcopy(model.config)
        config.tie_word_embeddings = False
        config._attn_implementation = "eager"  # the trainer's own may need a GPU
        with torch.random.fork_rng(devices=[]):
            plain = cast(Any, type(model)(config)).to(dtype).eval()
        plain.load_state_dict(dict(model.named_buffers()), strict=False)
        return Handover(plain)

    def take(self, weights: Iterable[tuple[str, Tensor]], version: int) -> None:
        """Copy the trainer's weights, one by one.

        Raises PluginError when their names are not the model's, TrainingError for a number that
        is not finite.
        """
        own = dict(self.plain.named_parameters())
        with torch.no_grad():
            given = self._copied(own, weights, version)
        if wrong := sorted(given ^ own.keys()):
            raise PluginError(
                f"rollout: the trainer's weights are not those of a plain "
                f"{type(self.plain).__name__} ('{wrong[0]}'); use the transformers engine"
            )

    def _copied(
        self, own: Mapping[str, Tensor], weights: Iterable[tuple[str, Tensor]], version: int
    ) -> set[str]:
        """Fill the copy; the names of what was given."""
        given = set()
        for name, x in weights:
            given.add(name)
            if name in own and not own[name].copy_(x).isfinite().all():
                cure = "lower the learning rate" if version else "look at the model it started from"
                raise TrainingError(f"rollout: '{name}' of the policy is not finite; {cure}")
        head, embeddings = self._ends()
        if head not in given and embeddings in given:  # tied
            own[head].copy_(own[embeddings])
            given.add(head)
        return given

    def _ends(self) -> list[str]:
        """The names of the weights of head and embeddings."""
        names = {id(x): name for name, x in self.plain.named_parameters()}
        ends: Any = self.plain.get_output_embeddings(), self.plain.get_input_embeddings()
        return [names[id(part.weight)] for part in ends]

    @property
    def vocabulary(self) -> int:
        """How many ids the model has."""
        return int(self.plain.config.get_text_config(decoder=True).vocab_size)

    @property
    def context(self) -> int | None:
        """The tokens that prompt and response may have together; None: any number."""
        return context_of(self.plain.config)

    def write(self, folder: Path) -> Path:
        """A new folder in `folder` in the form of checkpoints; the one before is removed.

        Every process of a group has a server of its own, but transformers writes on rank 0 alone.
        Raises DataError when there is no room, PluginError when nothing was written.
        """
        for old in folder.glob(f"{PREFIX}*"):
            shutil.rmtree(old)
        need = sum(x.nbytes for x in self.plain.state_dict().values())
        if need > (free := shutil.disk_usage(folder).free):
            raise DataError(
                f"{folder} has room for {free / 2**30:.1f} GiB and the policy's weights take "
                f"{need / 2**30:.1f}; name another place with the engine's `folder`"
            )
        place = Path(tempfile.mkdtemp(prefix=PREFIX, dir=folder))
        cast(Any, self.plain).should_save_on_this_rank = lambda is_main_process: True
        self.plain.save_pretrained(place, max_shard_size=need + 1)
        if not all(any(place.glob(name)) for name in ("config.json", "*.safetensors")):
            raise PluginError(f"{place}: transformers wrote no checkpoint; use another version")
        return place

    def log_probs(self, prompt: Sequence[int], answer: Sequence[int]) -> list[float]:
        """Log-probs [n] of an answer's tokens over the full vocabulary at temperature 1."""
        ids = torch.tensor([[*prompt, *answer]])
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            logits = self.plain(input_ids=ids).logits[0, len(prompt) - 1 : -1]
        every = logits.float().log_softmax(-1)
        found: list[float] = every.gather(1, torch.tensor(answer)[:, None])[:, 0].tolist()
        return found
