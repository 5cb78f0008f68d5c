"""The machine below: devices, memory, files, the terminal, the command line.

Bytes, seconds and flags come in and go out; nothing here knows what a model is.
"""
