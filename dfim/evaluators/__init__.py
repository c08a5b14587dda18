"""Layer 2: from a way to draw samples to scores and figures."""
