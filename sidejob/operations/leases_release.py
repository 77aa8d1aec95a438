"""Put jobs back whose worker is gone."""

from sidejob.call import Call, Reply

AT_ONCE = 100  # leases a statement
ROUNDS = 50  # statements a request


def leases_release(call: Call) -> Reply:
    """`{released}`: how many expired leases were ended. Nothing is lost when a repeat finds none."""
    from sidejob.bodies import Empty, parsed

    call.query.only()
    parsed(Empty, call.body)
    released = 0
    for _ in range(ROUNDS):
        ended = call.database.call("release_expired_leases", {"max_jobs": AT_ONCE})
        count = ended if isinstance(ended, int) else 0
        released += count
        if count < AT_ONCE:
            break
    return Reply({"released": released})
