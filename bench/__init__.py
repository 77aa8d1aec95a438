"""Side-by-side measurements: each one times ours and its yardstick in turns, in one run, and prints the ratio."""
