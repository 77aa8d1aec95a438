"""One program a peer. Each reads `{"slots": n, "seconds": s}` from its input, photographs BENCH_URL with n at once for
about s seconds, and answers with a line: `{"shots": how many, "seconds": how long it took, "picture": one PNG in base64}`."""
