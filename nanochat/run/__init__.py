"""A whole run, from what a user said to the last words of a driver: recipe, records, verbs.

Variables of a driver come in; a plan file and the command of each stage go out. What a stage learns
and how is in training/, which knows nothing of runs.
"""
