"""Throw a dead letter away."""

from sidejob.call import Call, Reply


def dlq_discard(call: Call) -> Reply:
    """`{ok: true}`: the letter is gone; its job and history stay. A second call finds none."""
    from sidejob.bodies import DlqDiscard, parsed

    call.query.only()
    dlq_id = parsed(DlqDiscard, call.body).dlq_id
    call.database.call("discard_dead_letter", {"id": dlq_id}, names={"id": "dlqId"})
    return Reply({"ok": True})
