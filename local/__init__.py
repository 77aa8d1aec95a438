"""The whole stack on one machine. Production imports nothing of it."""
