"""The first people, in the running stack: made once, found again, and never locked out."""

import uuid
from collections.abc import Mapping

import pytest

from deploy import provision
from tests.stack import Stack


@pytest.fixture
def env(stack: Stack) -> dict[str, str]:
    """What deploy.sh tells it, for a workspace of this test's own."""
    mark = uuid.uuid4().hex[:10]
    told = ("SUPABASE_URL", "SUPABASE_PUBLISHABLE_KEY", "SUPABASE_SECRET_KEY")
    return {name: stack.env[name] for name in told} | {
        "WORKSPACE_NAME": f"workspace {mark}",
        "OWNER_EMAIL": f"Owner-{mark}@sidejob.test",
        "OWNER_PASSWORD": f"owner's password {mark}",
        "WORKER_EMAIL": f"worker-{mark}@sidejob.test",
        "WORKER_PASSWORD": f"worker's password {mark}",
        "WORKER_ID": f"worker-{mark}",
    }


def sign_in(stack: Stack, env: Mapping[str, str], who: str, password: str = "") -> int:
    answer = stack.http.post(
        f"{env['SUPABASE_URL']}/auth/v1/token?grant_type=password",
        headers={"apikey": env["SUPABASE_PUBLISHABLE_KEY"]},
        json={"email": env[f"{who}_EMAIL"], "password": password or env[f"{who}_PASSWORD"]},
    )
    return answer.status_code


def everything(stack: Stack, env: Mapping[str, str]) -> list[object]:
    """What there is of this workspace, as the database has it."""
    return [
        stack.sql.execute(
            "select m.*, w.name, u.email, u.encrypted_password from workspace_members m join workspaces w on w.id = m.workspace_id"
            " join auth.users u on u.id = m.user_id where w.name = %s order by u.email",
            [env["WORKSPACE_NAME"]],
        ).fetchall()
    ]


def test_it_makes_a_workspace_its_owner_and_a_worker_who_can_work(
    stack: Stack, env: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert provision.main([], env) == 0
    said = capsys.readouterr().out
    assert env["WORKSPACE_NAME"] in said
    assert not [env[name] for name in env if "PASSWORD" in name and env[name] in said]
    assert (sign_in(stack, env, "OWNER"), sign_in(stack, env, "WORKER")) == (200, 200)
    assert (
        provision.main(
            ["token"], env | {"SMOKE_EMAIL": env["WORKER_EMAIL"], "SMOKE_PASSWORD": env["WORKER_PASSWORD"]}
        )
        == 0
    )
    token = capsys.readouterr().out.strip()
    claimed = stack.http.post(
        f"{stack.env['FUNCTIONS_URL']}/task-claim",
        json={"executorId": "x"},
        headers={"Authorization": f"Bearer {token}"},
    )
    assert (claimed.status_code, claimed.json()) == (200, {"job": None})


def test_a_second_run_changes_nothing(stack: Stack, env: dict[str, str]) -> None:
    assert provision.main([], env) == 0
    before = everything(stack, env)
    assert provision.main([], env) == 0
    assert everything(stack, env) == before


def test_an_owner_who_chose_another_password_keeps_it(stack: Stack, env: dict[str, str]) -> None:
    assert provision.main([], env) == 0
    assert provision.main([], env | {"OWNER_PASSWORD": "somebody thought of another"}) == 0
    assert sign_in(stack, env, "OWNER") == 200


def test_a_worker_whose_password_does_not_work_gets_the_stored_one(stack: Stack, env: dict[str, str]) -> None:
    """As after --new-worker-password, and after a run that ended between keeping a password and setting it."""
    assert provision.main([], env) == 0
    assert provision.main([], env | {"WORKER_PASSWORD": "the next one, long enough"}) == 0
    assert sign_in(stack, env, "WORKER", "the next one, long enough") == 200
    assert sign_in(stack, env, "WORKER") == 400


def test_somebody_who_has_a_home_keeps_it(stack: Stack, env: dict[str, str]) -> None:
    assert provision.main([], env) == 0
    second = env | {
        "WORKSPACE_NAME": f"{env['WORKSPACE_NAME']} 2",
        "WORKER_EMAIL": f"second-{env['WORKER_EMAIL']}",
        "WORKER_ID": f"second-{env['WORKER_ID']}",
    }
    assert provision.main([], second) == 0
    homes = stack.sql.execute(
        "select w.name from workspace_members m join workspaces w on w.id = m.workspace_id join auth.users u on u.id = m.user_id"
        " where u.email = %s and m.is_default",
        [env["OWNER_EMAIL"].lower()],
    ).fetchall()
    assert [row["name"] for row in homes] == [env["WORKSPACE_NAME"]]


def test_a_person_who_is_in_the_workspace_is_not_made_its_worker(
    stack: Stack, env: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert provision.main([], env) == 0
    swapped = env | {
        "WORKER_EMAIL": env["OWNER_EMAIL"],
        "WORKER_PASSWORD": env["OWNER_PASSWORD"],
        "OWNER_EMAIL": f"x-{env['OWNER_EMAIL']}",
    }
    assert provision.main([], swapped) == 1
    assert "in the workspace already, as owner" in capsys.readouterr().err
    assert sign_in(stack, env, "OWNER") == 200


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"SUPABASE_SECRET_KEY": "sb_secret_wrong"}, "/auth/v1/admin/users was refused: 401"),
        ({"SUPABASE_URL": "http://127.0.0.1:9"}, "http://127.0.0.1:9 cannot be reached"),
        ({"WORKER_ID": "not a name"}, "/rest/v1/workspace_members was refused: 400"),
        ({"WORKER_ID": "local-worker"}, "/rest/v1/workspace_members was refused: 409"),
        ({"WORKER_ID": "", "OWNER_EMAIL": ""}, "Set these environment variables: OWNER_EMAIL, WORKER_ID"),
    ],
)
def test_what_is_wrong_is_said_without_a_secret(
    env: dict[str, str], change: dict[str, str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert provision.main([], env | change) in (1, 2)
    err = capsys.readouterr().err
    assert said in err
    assert not [
        value
        for name, value in (env | change).items()
        if ("PASSWORD" in name or "SECRET" in name) and value in err
    ]
