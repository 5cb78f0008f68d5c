"""What a model is taught to do and asked: conversations, one file a task, and the calculator.

Messages enter and leave as plain text; no task knows a tokenizer or a model.
"""

# The tasks of ChatCORE -> how good guessing is. HumanEval, the sixth, runs what a model wrote: not
# without asking.
GUESSING = {
    "arc_easy": 0.25,
    "arc_challenge": 0.25,
    "mmlu": 0.25,
    "gsm8k": 0.0,
    "spelling_bee": 1 / 3,
}
