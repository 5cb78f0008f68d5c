"""tinyworld, the embedded default data: short English texts and talks about a small true world.

In: nothing but a shard number or a count. Out: documents (str), conversations (lists of
messages) and held-out questions; the same bytes on every platform. It knows no tokenizer, no
files and no model.
"""

from nanochat.data.tinyworld.questions import Conversation, Message, Part, Question
from nanochat.data.tinyworld.talks import (
    REPORTED_ONLY,
    Talks,
    conversations,
    held_out,
    validation_conversations,
)
from nanochat.data.tinyworld.texts import SHARD_BYTES, documents, validation_documents

__all__ = [
    "REPORTED_ONLY", "SHARD_BYTES", "Conversation", "Message", "Part", "Question", "Talks",
    "conversations", "documents", "held_out", "validation_conversations", "validation_documents",
]  # fmt: skip
