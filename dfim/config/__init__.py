"""What a config means: names to objects, schedules, errors."""
