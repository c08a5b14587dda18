"""Recorded episodes: windows of positions and actions."""
