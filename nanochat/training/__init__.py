"""How a model learns: the one loop, the optimiser, checkpoints, and the plan of a whole run.

A model and a stream of batches enter; a trained checkpoint leaves. Knows nothing of scripts.
"""
