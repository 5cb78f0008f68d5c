"""The flags that choose a trained model, shared by every command that opens one. No torch here.

A command embeds ModelChoice or ChatModelChoice as its field `model`. find() is cheap and says what
is wrong; load() waits for torch and the weights. What else can be wrong is checked in between.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, NamedTuple

import tyro

from nanochat import stages
from nanochat.system import cli

if TYPE_CHECKING:
    from nanochat.gpt import GPT
    from nanochat.system.device import Device
    from nanochat.tokenizer import Tokenizer
    from nanochat.training.checkpoint_manager import Checkpoint


def either(kinds: tuple[str, ...]) -> str:
    """Kinds of models as help and errors list them.

    >>> either(("base", "mid", "sft"))
    'base, mid or sft'
    """
    return " or ".join(filter(None, (", ".join(kinds[:-1]), kinds[-1])))


class Loaded(NamedTuple):
    """A model that is ready to answer, and its own tokenizer."""

    model: GPT
    tokenizer: Tokenizer
    device: Device


@dataclass(frozen=True)
class ModelChoice:
    """Which trained model, and where it runs."""

    KINDS: ClassVar[tuple[str, ...]] = stages.CHECKPOINTS  # not a field, which would be a flag

    # help=, not a docstring: a new stage's row must reach this text too.
    source: Annotated[
        str, tyro.conf.arg(aliases=["-i"], help=f"kind of model: {either(stages.CHECKPOINTS)}")
    ] = "base"
    model_tag: Annotated[str | None, tyro.conf.arg(aliases=["-g"])] = None
    """which model (default: the newest)"""
    step: Annotated[int | None, tyro.conf.arg(aliases=["-s"])] = None
    """which step (default: the last)"""
    device_type: str | None = None
    """cuda, mps or cpu (default: the best available)"""

    def __post_init__(self) -> None:
        """Check the flags; raises ValueError with the value and the rule."""
        if self.source not in self.KINDS:
            raise ValueError(f"source={self.source}: it must be {either(self.KINDS)}")
        cli.check_device_type(self.device_type)

    def find(self) -> Checkpoint:
        """The checkpoint on disk, checked. Raises UserError that lists the available ones."""
        from nanochat.training import checkpoint_manager as checkpoints

        return checkpoints.find(self.source, self.model_tag, self.step)

    def load(self, checkpoint: Checkpoint) -> Loaded:
        """Its model, frozen, and tokenizer. Raises UserError for an unusable device or file."""
        from nanochat.system.device import open_device

        # Frozen: no command that chooses a model trains it, and answers come faster on a GPU.
        device = open_device(self.device_type)
        return Loaded(checkpoint.model(device).freeze(), checkpoint.tokenizer(), device)


@dataclass(frozen=True)
class ChatModelChoice(ModelChoice):
    """Which chat model, and where it runs."""

    KINDS: ClassVar[tuple[str, ...]] = stages.CHAT

    source: Annotated[
        str, tyro.conf.arg(aliases=["-i"], help=f"kind of model: {either(stages.CHAT)}")
    ] = "sft"
