"""Where text comes from and how it becomes batches.

Sources and shards go in; rows of token ids come out, each with the position to resume from.
Knows the tokenizer and the conversation format, but neither the model nor the optimizer.
"""
