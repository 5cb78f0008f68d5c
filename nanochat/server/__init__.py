"""The chat in the browser: messages come in over HTTP, an answer goes out as it is made.

Knows engines and conversations, not checkpoints; serves this machine only.
"""
