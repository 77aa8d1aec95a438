"""Measurements side by side: ours and its yardstick in turns, in one run, as a ratio."""
