"""One program a queue. Each reads a command a line from its input, does it, and answers with a line of JSON.

    {"do": "fill", "jobs": n}                                     puts n jobs into the queue, in bulk; not timed
    {"do": "enqueue", "jobs": n, "concurrency": c, "bulk": false} puts n jobs into the queue, one by one or 500 at once
    {"do": "drain", "jobs": n, "concurrency": c, "batch": false}  does n waiting jobs with a handler that does nothing

The answer `{"seconds": s}` is the time from the first call to the last one's answer. Queues whose worker must be started
for a drain count from the start of the first handler until the database has no open job.
"""
