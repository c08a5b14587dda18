"""Worlds to act in: pure functions of JAX, `reset(key)` and `step(state, action)`."""
