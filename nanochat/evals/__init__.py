"""How good a model is: numbers out of a model and held-out text. Trains nothing."""
