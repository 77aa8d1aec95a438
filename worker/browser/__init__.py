"""Browser jobs: one supervised Chromium, one context and one way out a job.

From the outside in: `engine` keeps a browser alive (`running`, `launching`, `memory`); `work` makes a handler
of each of the `kinds` of job (`screenshot` with `capture` and `images`, `pdf`, `content`), whose payloads are
in `options`; `visit` opens the page (`identity`, `settling`, `watch` with `globs` and `nuisances`, `trace`,
`budget`), and `scripts` are what it is asked with (`asking`); `computing` has `markdown` made and PDFs
measured (`measuring`); `egress` is the proxy that it goes through, and `targets`, `addresses` and `lookups`
say where that may lead; `faults` says what a failure means.
"""
