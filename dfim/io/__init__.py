"""Files and arrays at the border: input is checked, output is written whole."""
