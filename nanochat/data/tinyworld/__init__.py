"""tinyworld, the embedded default data: short English texts and talks about a small true world.

In: a world, read from text files (world/ is the built-in one), and a shard number or a count. Out:
documents (str), conversations (lists of messages) and held-out questions; the same bytes on every
platform. It knows no tokenizer and no model, and writes nothing.
"""

from nanochat.data.tinyworld.loading import load
from nanochat.data.tinyworld.questions import Conversation, Message, Part, Question
from nanochat.data.tinyworld.talks import (
    Talks,
    conversations,
    held_out,
    validation_conversations,
)
from nanochat.data.tinyworld.texts import SHARD_BYTES, documents, validation_documents
from nanochat.data.tinyworld.world import World

__all__ = [
    "SHARD_BYTES", "Conversation", "Message", "Part", "Question", "Talks", "World",
    "conversations", "documents", "held_out", "load", "validation_conversations",
    "validation_documents",
]  # fmt: skip
