"""One handler a file. A function's main.py and the Collab API share them; there is no second
implementation."""
