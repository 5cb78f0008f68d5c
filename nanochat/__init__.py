"""nanochat: a chat model of one's own, trained from nothing on one machine.

Importing this package imports nothing else and does nothing; docs/tour.md gives a reading order.
"""
