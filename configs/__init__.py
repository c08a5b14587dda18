"""One file an experiment: command, time and score in its docstring; modes full and smoke."""
