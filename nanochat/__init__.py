"""nanochat: your own ChatGPT, trained from scratch on one machine.

Importing this package imports nothing else and does nothing; docs/tour.md gives a reading order.
"""
