"""Tools that put the parts where they run."""
