"""The commands, one file each: a Config, a main, nothing else. `python -m scripts.NAME --help`."""
