"""Files and arrays at the border: what comes in is checked, what goes out is whole."""
