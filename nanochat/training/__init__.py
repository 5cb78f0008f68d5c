"""How a model learns: the one loop, the optimizer, checkpoints, and what a stage starts from.

Rows and a model come in; a trained model in a checkpoint goes out. Which stages a run has, and with
what numbers, is decided in run/, of which nothing here knows.
"""
