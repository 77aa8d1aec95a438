"""The worker: claims jobs under a lease, does the work in a browser, stores the files and reports."""

VERSION = "0.1.0"
