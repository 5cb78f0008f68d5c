"""Where text comes from and how it becomes batches.

Sources and shards enter, rows of token ids leave, each with the position from which to go on.
Knows the tokenizer and the conversation format; knows no model and no optimiser.
"""
