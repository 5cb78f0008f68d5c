"""What a model is taught to do and asked: conversations, one file per task, and the calculator.

Messages enter and leave as plain text; no task knows a tokenizer or a model. A new task is a file
with a Task (task.py) and a row in TASKS.
"""

from nanochat.tasks import arc, gsm8k, mmlu, smoltalk, spelling_bee
from nanochat.tasks.task import Task


def _by_name(*tasks: Task) -> dict[str, Task]:
    found = {task.name: task for task in tasks}
    assert len(found) == len(tasks), "two tasks have the same name"
    return found


# In this order they are fetched, learned from and asked.
TASKS = _by_name(
    smoltalk.TASK,
    arc.EASY,
    arc.CHALLENGE,
    mmlu.TASK,
    gsm8k.TASK,
    spelling_bee.TASK,
)
ASKED = {name: task for name, task in TASKS.items() if task.asked}
GUESSING = {name: task.guess for name, task in ASKED.items()}  # name -> accuracy of guessing

# A fixed benchmark: a new task is reported beside it and does not change what it means. HumanEval
# runs what a model wrote, and so has no file here.
CHATCORE = ("arc_easy", "arc_challenge", "mmlu", "gsm8k", "humaneval", "spelling_bee")


def chatcore_name(n_tasks: int) -> str:
    """What a mean over so many tasks may be called.

    >>> chatcore_name(6), chatcore_name(5)
    ('ChatCORE', 'ChatCORE (5 of 6)')
    """
    every = len(CHATCORE)
    return "ChatCORE" if n_tasks == every else f"ChatCORE ({n_tasks} of {every})"
