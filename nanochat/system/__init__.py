"""The machine below: devices, memory, files, the terminal, the command line.

Bytes, seconds and flags go in and come out; nothing here knows what a model is.
"""
