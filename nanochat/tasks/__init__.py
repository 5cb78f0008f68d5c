"""What a model is taught to do and asked: conversations, one file a task, and the calculator.

Messages enter and leave as plain text; no task knows a tokenizer or a model.
"""
