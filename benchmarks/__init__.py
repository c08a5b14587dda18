"""One command, one table each."""
