"""What a model is taught to do and asked: conversations, one file a task, and the calculator.

Messages enter and leave as plain text; no task knows a tokenizer or a model.
"""

# The tasks of ChatCORE -> how good guessing is. HumanEval, the sixth, runs what a model wrote: not
# without asking.
CHATCORE_TASKS = 6
GUESSING = {
    "arc_easy": 0.25,
    "arc_challenge": 0.25,
    "mmlu": 0.25,
    "gsm8k": 0.0,
    "spelling_bee": 1 / 3,
}


def chatcore_name(n_tasks: int) -> str:
    """What a mean over so many tasks may be called.

    >>> chatcore_name(6), chatcore_name(5)
    ('ChatCORE', 'ChatCORE (5 of 6)')
    """
    return "ChatCORE" if n_tasks == CHATCORE_TASKS else f"ChatCORE ({n_tasks} of {CHATCORE_TASKS})"
