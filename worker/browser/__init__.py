"""Browser jobs: one supervised Chromium, one context a job."""
