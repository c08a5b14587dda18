"""One run: its state, its step, what it notices and writes."""
