"""deploy.sh against fakes of its tools: what it calls, in which order, what a failure leaves, and what comes after it."""

import itertools
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.stage import functions_in_repository
from tests.deploy.conftest import SECRETS, Cloud, Ran, cloud_in

KEYHOLDERS = {"artifacts-sweep", "leases-release", "sign-artifact"}
FEW = ("jobs-recent", "sign-artifact")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Cloud, Ran, Ran, Ran]]:
    """A cloud after `all --dry-run`, `all` and `all`, with what each run did."""
    with cloud_in(tmp_path_factory.mktemp("cloud")) as cloud:
        yield cloud, cloud.deploy("all", "--dry-run"), cloud.deploy("all"), cloud.deploy("all")


def option(call: str, name: str) -> str:
    """The value of an option of a call, as it was typed."""
    found = re.search(rf" {name}[ =](\S+)", call)
    assert found, f"{call} has no {name}"
    return found[1].replace("\\", "")


def variables(cloud: Cloud, deployed: str) -> dict[str, str]:
    """The environment of a service or pool, as gcloud understood it."""
    return dict(line.split("=", 1) for line in cloud.read(f"{deployed}/variables").splitlines())


def test_the_first_run_goes_from_the_database_outwards(runs: tuple[Cloud, Ran, Ran, Ran]) -> None:
    _, _, first, _ = runs
    assert first.code == 0, first.err
    steps = [
        r"supabase db push --remote=abcdefghijklmnopqrst --yes",
        r"gcloud secrets create sidejob-worker-password ",
        r"gcloud secrets create sidejob-secret-key ",
        r"gcloud run deploy ",
        r"curl ",
        r"gcloud run services update-traffic ",
        r"supabase secrets set --env-file ",
        r"supabase functions deploy ",
        r"gcloud builds submit ",
        r"gcloud run worker-pools deploy ",
    ]
    places = [[i for i, call in enumerate(first.changes()) if re.match(step, call)] for step in steps]
    assert all(places), first.changes()
    for before, after in itertools.pairwise(places):
        if "secrets set" not in first.changes()[before[0]]:  # their version is noted when they are deployed
            assert max(before) < min(after)


def test_a_dry_run_prints_the_very_commands_and_runs_none(runs: tuple[Cloud, Ran, Ran, Ran]) -> None:
    _, dry, first, _ = runs
    assert dry.code == 0, dry.err
    assert dry.changes() == []
    printed = [line for line in dry.out.splitlines() if not line.startswith("#")]
    (provisioned,) = [line for line in printed if line.endswith(" -m deploy.provision")]
    printed.remove(provisioned)
    # What the run alone can know: the digest of an image that is not built yet.
    called = [
        re.sub(r"@sha256:\w+", "@sha256:of-the-image-when-it-is-built", call) for call in first.changes()
    ]
    assert sorted(printed) == sorted(called)
    # What runs beside each other has no order; everything else has.
    parallel = re.compile(r"gcloud run (deploy|services)|curl ")
    assert [x for x in printed if not parallel.match(x)] == [x for x in called if not parallel.match(x)]


def test_a_second_run_changes_nothing_and_says_so(runs: tuple[Cloud, Ran, Ran, Ran]) -> None:
    _, _, _, second = runs
    assert second.code == 0, second.err
    assert second.changes() == []
    said = [line.split() for line in second.out.splitlines()]
    assert [words[0] for words in said if words and words[-1] == "unchanged"] == [
        "database", "functions", "forwarders", "worker",
    ]  # fmt: skip


def test_only_the_functions_that_use_the_secret_key_may_read_it(runs: tuple[Cloud, Ran, Ran, Ran]) -> None:
    cloud, _, first, _ = runs
    deployed = {call.split()[3]: call for call in first.calls if call.startswith("gcloud run deploy ")}
    assert set(deployed) == set(functions_in_repository())
    for name, call in deployed.items():
        held = name in KEYHOLDERS
        account = option(call, "--service-account")
        assert account == f"sidejob-{'keyholder' if held else 'functions'}@my-project.iam.gserviceaccount.com"
        assert (" --set-secrets SUPABASE_SECRET_KEY=sidejob-secret-key:1 " in call) == held
        assert (" --clear-secrets " in call) == (not held)
    readers = {
        secret: cloud.read(f"secrets/{secret}/policy").split()
        for secret in ("sidejob-secret-key", "sidejob-worker-password")
    }
    assert readers == {
        "sidejob-secret-key": ["serviceAccount:sidejob-keyholder@my-project.iam.gserviceaccount.com"],
        "sidejob-worker-password": ["serviceAccount:sidejob-worker@my-project.iam.gserviceaccount.com"],
    }


def test_a_function_is_deployed_as_it_is_staged_with_all_that_it_needs(
    runs: tuple[Cloud, Ran, Ran, Ran],
) -> None:
    cloud, _, first, _ = runs
    deployed = {call.split()[3]: call for call in first.calls if call.startswith("gcloud run deploy ")}
    call = deployed["jobs-recent"]
    assert option(call, "--source") == str(cloud.folder / "build" / "functions" / "jobs-recent")
    assert option(call, "--function") == "jobs_recent"
    assert variables(cloud, "services/jobs-recent") == {
        "SUPABASE_URL": cloud.url, "SUPABASE_PUBLISHABLE_KEY": "sb_publishable_x", "GOOGLE_CLOUD_PROJECT": "my-project",
        "THREADS": "16", "TRUSTED_PROXIES": "2",
    }  # fmt: skip
    assert option(deployed["job-events"], "--concurrency") == "250"
    assert option(deployed["job-events"], "--timeout") == "300"
    for label in option(call, "--labels").split(","):
        assert re.fullmatch(r"[a-z]+=[a-z0-9-]{1,63}", label)
    assert re.fullmatch(r"c[0-9a-f]{12}", option(call, "--tag"))


def test_each_function_is_asked_under_its_tag_before_it_serves(runs: tuple[Cloud, Ran, Ran, Ran]) -> None:
    cloud, _, first, _ = runs
    for name in functions_in_repository():
        tag = next(option(c, "--tag") for c in first.calls if c.startswith(f"gcloud run deploy {name} "))
        asked = [
            c
            for c in first.calls
            if c.startswith("curl ") and f"{tag}---{name}-123456789012.europe-west1.run.app" in c
        ]
        assert [option(call, "--request") for call in asked[:1]] == ["OPTIONS"]
        assert len(asked) == (3 if name in ("metrics-overview", "leases-release") else 2)
        served = first.calls.index(
            next(c for c in first.calls if re.match(rf"gcloud run services update-traffic {name} ", c))
        )
        assert max(first.calls.index(call) for call in asked) < served
        assert f"--to-tags {tag}=100" in first.calls[served]
    assert "Authorization: Bearer token-of-the-smoke-test" in cloud.read("curl.stdin")


def test_the_worker_runs_an_image_by_its_digest_with_its_password_alone(
    runs: tuple[Cloud, Ran, Ran, Ran],
) -> None:
    cloud, _, first, _ = runs
    (call,) = [c for c in first.calls if c.startswith("gcloud run worker-pools deploy sidejob-worker ")]
    assert variables(cloud, "pools/sidejob-worker") == {
        "SUPABASE_URL": cloud.url, "SUPABASE_PUBLISHABLE_KEY": "sb_publishable_x", "WORKER_EMAIL": "worker@example.test",
    }  # fmt: skip
    assert re.search(r"--image europe-west1-docker\.pkg\.dev/my-project/sidejob/worker@sha256:d{64} ", call)
    assert option(call, "--set-secrets") == "WORKER_PASSWORD=sidejob-worker-password:1"
    assert option(call, "--instances") == "1"


def test_the_passwords_are_random_and_in_the_secret_manager(runs: tuple[Cloud, Ran, Ran, Ran]) -> None:
    cloud, *_ = runs
    worker, owner = (cloud.read(f"secrets/sidejob-{who}-password/1") for who in ("worker", "owner"))
    assert len(worker) >= 32
    assert worker != owner
    assert cloud.users["worker@example.test"][1] == worker
    assert cloud.users["owner@example.test"][1] == owner
    assert cloud.read("secrets/sidejob-secret-key/1") == SECRETS["SUPABASE_SECRET_KEY"]
    roles = {(row["role"], row["worker_id"], row["is_default"]) for row in cloud.members}
    assert roles == {("owner", None, True), ("worker", "worker", True)}


def test_only_the_first_deployment_of_a_service_has_traffic_at_once(cloud: Cloud) -> None:
    first = cloud.deploy("functions", *FEW)
    assert first.code == 0, first.err
    assert not [call for call in first.calls if "--no-traffic" in call]
    later = cloud.deploy("functions", *FEW, FUNCTION_MAX_INSTANCES="5")
    assert later.code == 0, later.err
    deployed = [call for call in later.calls if call.startswith("gcloud run deploy ")]
    assert len(deployed) == 2
    for call in deployed:
        name = call.split()[3]
        assert " --no-traffic " in call
        assert f"before={name}-00001-abc" in option(call, "--labels")
        assert cloud.serving(name) == f"{name}-00002-abc"
        tags = [path.name for path in (cloud.folder / "fake" / "services" / name).glob("tag.*")]
        assert len(tags) == 1, "tags of revisions that serve no more are taken away"


def test_a_new_secret_key_reaches_its_holders_alone_under_its_own_number(cloud: Cloud) -> None:
    assert cloud.deploy("functions", *FEW).code == 0
    rotated = cloud.deploy("functions", *FEW, SUPABASE_SECRET_KEY="sb_secret_the-next-one")
    assert rotated.code == 0, rotated.err
    (deployed,) = [call for call in rotated.calls if call.startswith("gcloud run deploy ")]
    assert deployed.startswith("gcloud run deploy sign-artifact ")
    assert option(deployed, "--set-secrets") == "SUPABASE_SECRET_KEY=sidejob-secret-key:2"
    assert cloud.read("secrets/sidejob-secret-key/2") == "sb_secret_the-next-one"
    # Without the variable the newest version is taken, and the old one never comes back by itself.
    assert cloud.deploy("functions", *FEW, SUPABASE_SECRET_KEY=None).changes() == []


@pytest.mark.soak
def test_a_new_password_of_the_worker_is_kept_set_and_deployed(cloud: Cloud) -> None:
    assert cloud.deploy("provision").code == 0
    assert cloud.deploy("worker").code == 0
    old = cloud.users["worker@example.test"][1]
    assert cloud.deploy("provision").changes() == []
    assert cloud.users["worker@example.test"][1] == old, "a password that works is never reset"
    assert cloud.deploy("provision", "--new-worker-password").code == 0
    new = cloud.users["worker@example.test"][1]
    assert new != old
    assert new == cloud.read("secrets/sidejob-worker-password/2")
    (deployed,) = [
        call for call in cloud.deploy("worker").calls if "worker-pools deploy sidejob-worker" in call
    ]
    assert option(deployed, "--set-secrets") == "WORKER_PASSWORD=sidejob-worker-password:2"


@pytest.mark.parametrize(
    ("broken", "deployed_again"),
    [
        pytest.param("gcloud run deploy sign-artifact *", 1, marks=pytest.mark.soak),
        ("curl *jobs-recent*", 0),
        pytest.param("gcloud run services update-traffic sign-artifact *", 0, marks=pytest.mark.soak),
    ],
)
def test_a_failed_step_moves_no_traffic_and_the_next_run_goes_on_from_there(
    cloud: Cloud, broken: str, deployed_again: int
) -> None:
    assert cloud.deploy("functions", *FEW).code == 0
    changed = {"FUNCTION_MAX_INSTANCES": "5"}
    cloud.fail(broken)
    failed = cloud.deploy("functions", *FEW, **changed)
    assert failed.code == 1
    assert re.search(r"Still so: .+\nNext: .+", failed.err)
    guilty = "jobs-recent" if "jobs-recent" in broken else "sign-artifact"
    assert guilty in failed.err
    assert cloud.serving(guilty) == f"{guilty}-00001-abc"
    assert not [call for call in failed.calls if call.startswith("supabase functions deploy")]
    cloud.fail()
    mended = cloud.deploy("functions", *FEW, **changed)
    assert mended.code == 0, mended.err
    assert len([call for call in mended.calls if call.startswith("gcloud run deploy")]) == deployed_again
    assert {cloud.serving(name) for name in FEW} == {f"{name}-00002-abc" for name in FEW}
    # One release, though it took two runs: all of it goes back.
    assert cloud.deploy("rollback").code == 0
    assert {cloud.serving(name) for name in FEW} == {f"{name}-00001-abc" for name in FEW}


@pytest.mark.soak
def test_a_first_deployment_that_does_not_answer_well_is_asked_again(cloud: Cloud) -> None:
    cloud.fail("curl *")
    assert cloud.deploy("functions", "jobs-recent").code == 1
    assert cloud.deploy("functions", "jobs-recent").code == 1, "it is not taken for unchanged"
    assert "never found to answer well" in cloud.deploy("status").out
    cloud.fail()
    mended = cloud.deploy("functions", "jobs-recent")
    assert mended.code == 0
    assert not [call for call in mended.calls if call.startswith("gcloud run deploy")]


def test_rollback_goes_back_by_one_release_and_repeats_harmlessly(cloud: Cloud) -> None:
    assert cloud.deploy("functions", *FEW).code == 0
    second = {"FUNCTION_MAX_INSTANCES": "5", "SOURCE_DATE_EPOCH": "1764100100"}
    assert cloud.deploy("functions", *FEW, **second).code == 0
    third = {**second, "SUPABASE_SECRET_KEY": "sb_secret_the-next-one", "SOURCE_DATE_EPOCH": "1764100200"}
    assert cloud.deploy("functions", *FEW, **third).code == 0
    back = cloud.deploy("rollback")
    assert back.code == 0, back.err
    # jobs-recent was not part of the third release: what it serves is right.
    assert (cloud.serving("jobs-recent"), cloud.serving("sign-artifact")) == (
        "jobs-recent-00002-abc", "sign-artifact-00002-abc",
    )  # fmt: skip
    assert [call for call in back.changes() if "update-traffic" not in call] == []
    assert cloud.deploy("rollback").changes() == []
    # The same code again: its revision is there, and is asked before it serves.
    again = cloud.deploy("functions", *FEW, **third)
    assert not [call for call in again.calls if call.startswith("gcloud run deploy")]
    assert cloud.serving("sign-artifact") == "sign-artifact-00003-abc"


@pytest.mark.soak
def test_a_worker_that_was_rolled_back_is_replaced_by_the_next_deployment(cloud: Cloud) -> None:
    assert cloud.deploy("provision").code == 0
    assert cloud.deploy("worker").code == 0
    assert cloud.deploy("worker", WORKER_MEMORY="4Gi").code == 0
    assert cloud.read("pools/sidejob-worker/serving") == "sidejob-worker-00002-abc"
    assert cloud.deploy("rollback").code == 0
    assert cloud.read("pools/sidejob-worker/serving") == "sidejob-worker-00001-abc"
    assert cloud.deploy("rollback").changes() == []
    assert cloud.deploy("worker", WORKER_MEMORY="8Gi").code == 0
    assert cloud.read("pools/sidejob-worker/serving") == "sidejob-worker-00003-abc"
    assert cloud.deploy("worker", WORKER_MEMORY="8Gi").changes() == []


def test_everything_that_is_missing_is_said_at_once(cloud: Cloud) -> None:
    for name in ("account", "supabase.account"):
        (cloud.folder / "fake" / name).unlink()
    (cloud.folder / "bin" / "curl").unlink()
    missing = {
        "GOOGLE_CLOUD_REGION": None, "SUPABASE_PROJECT_REF": "my-project", "SUPABASE_PUBLISHABLE_KEY": "sb_secret_x",
        "SUPABASE_SECRET_KEY": "sb_publishable_x", "OWNER_EMAIL": None, "WORKER_EMAIL": None, "WORKER_INSTANCES": "many",
        "WORKER_SETTINGS": "FIGMA_API_TOKEN=x", "WORKER_BUILDER": "podman",
    }  # fmt: skip
    ran = cloud.deploy("all", **missing)
    assert ran.code == 2
    assert ran.changes() == []
    for word in [*missing, "gcloud auth login", "supabase login", "curl is not on PATH"]:
        assert ran.err.count(word) == 1 or (word.isupper() and word in ran.err), word


def test_with_nothing_at_all_it_says_what_there_has_to_be(cloud: Cloud) -> None:
    for name in ("gcloud", "supabase", "curl"):
        (cloud.folder / "bin" / name).unlink()
    kept = ("PATH", "HOME", "TMPDIR", "FAKE", "SIDEJOB_BUILD")
    cloud.env = {name: cloud.env[name] for name in kept}
    ran = cloud.deploy("all")
    assert ran.code == 2
    for word in ("gcloud", "supabase", "curl", "GOOGLE_CLOUD_PROJECT", "GOOGLE_CLOUD_REGION", "SUPABASE_PROJECT_REF",
                 "SUPABASE_PUBLISHABLE_KEY", "SUPABASE_SECRET_KEY", "OWNER_EMAIL", "WORKER_EMAIL"):  # fmt: skip
        assert word in ran.err


def test_apis_that_are_off_come_with_the_command_that_turns_them_on(cloud: Cloud) -> None:
    cloud.write("apis", "run.googleapis.com\niam.googleapis.com\n")
    ran = cloud.deploy("functions")
    assert ran.code == 2
    assert (
        "gcloud services enable cloudbuild.googleapis.com artifactregistry.googleapis.com secretmanager.googleapis.com"
        " --project my-project"
    ) in ran.err


def test_a_service_of_somebody_else_with_the_same_name_is_left_alone(cloud: Cloud) -> None:
    folder = cloud.folder / "fake" / "services" / "collab"
    folder.mkdir()
    for name in ("newest", "serving"):
        (folder / name).write_text("collab-00007-xyz")
    (folder / "pinned").write_text("no")
    ran = cloud.deploy("functions", "jobs-recent")
    assert ran.code == 2
    assert "service 'collab'" in ran.err
    assert ran.changes() == []


@pytest.mark.parametrize(
    ("version", "push", "secrets"),
    [
        ("2.122.1", "supabase db push --linked --yes", "--project-ref abcdefghijklmnopqrst"),
        ("3.1.0", "supabase db push --remote=abcdefghijklmnopqrst --yes", "--remote=abcdefghijklmnopqrst"),
    ],
)
def test_the_database_that_is_meant_is_named_in_the_words_of_each_supabase(
    cloud: Cloud, version: str, push: str, secrets: str
) -> None:
    cloud.write("supabase.version", version)
    ran = cloud.deploy("database")
    assert ran.code == 0, ran.err
    assert ran.changes() == [push]
    cloud.deploy("functions", "jobs-recent")
    sent = [
        call for call in cloud.read("calls").splitlines() if re.match("supabase (functions|secrets)", call)
    ]
    assert sent
    assert all(secrets in call for call in sent)


def test_a_supabase_that_nobody_knows_yet_is_refused(cloud: Cloud) -> None:
    cloud.write("supabase.version", "4.0.0")
    ran = cloud.deploy("database")
    assert ran.code == 2
    assert "'4.0.0'" in ran.err


@pytest.mark.soak
def test_an_older_gcloud_is_spoken_to_in_its_own_words(cloud: Cloud) -> None:
    cloud.write("pools.group", "beta")
    assert cloud.deploy("provision").code == 0
    (call,) = [c for c in cloud.deploy("worker").calls if " deploy sidejob-worker " in c]
    assert call.startswith("gcloud beta run worker-pools deploy sidejob-worker ")
    assert option(call, "--scaling") == "1"


@pytest.mark.soak
def test_an_image_can_be_built_by_docker_instead(cloud: Cloud) -> None:
    assert cloud.deploy("provision").code == 0
    ran = cloud.deploy("worker", WORKER_BUILDER="docker")
    assert ran.code == 0, ran.err
    built = [call.split()[1] for call in ran.calls if call.startswith("docker ")]
    assert built == ["build", "push"]
    assert not [call for call in ran.calls if call.startswith("gcloud builds")]


def test_a_migration_that_takes_something_away_is_not_applied(cloud: Cloud) -> None:
    from deploy import expanding

    cloud.write("pending", "20261124000700_create_audit_log.sql\n")
    assert cloud.deploy("database").code == 0
    taking = {
        "alter table jobs drop column priority": ["drop column"],
        "alter table jobs rename to tasks; drop table x;": ["rename to", "drop table"],
        "alter table jobs alter column type set not null": ["alter column type set not null"],
        "-- drop table jobs\ncomment on table jobs is 'drop table'; create table x (id int)": [],
        "create function f() returns void language sql as $$ drop table x $$": [],
        "-- old code survives: nothing has ever read it\nalter table jobs drop column nothing": [],
    }
    for sql, words in taking.items():
        assert expanding.taken(sql) == words, sql
    for path in expanding.MIGRATIONS.glob("*.sql"):
        assert expanding.taken(path.read_text()) == [], path


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ([], "Say what to do"),
        (["everything"], "no command everything"),
        (["all", "--fast"], "no option --fast"),
        (["all", "jobs-recent"], "all takes no names"),
        (["functions", "--project"], "--project needs a value"),
        (["worker", "--new-worker-password"], "provision or all"),
        (["all", "--env-file", "nowhere"], "no file nowhere"),
        (["functions", "job-recent"], "There are: artifacts-list"),
        (["all", "--project", "My Project"], "no id of a Google Cloud project"),
    ],
)
def test_a_wrong_word_is_named_and_nothing_happens(cloud: Cloud, words: list[str], problem: str) -> None:
    ran = cloud.deploy(*words)
    assert ran.code == 2
    assert problem in ran.err
    assert ran.changes() == []


def test_a_file_of_variables_is_read_and_never_run(cloud: Cloud) -> None:
    file = cloud.folder / "deploy.env"
    file.write_text(
        "# the cloud\n"
        "export GOOGLE_CLOUD_PROJECT=other-project\r\n"
        f"SUPABASE_SECRET_KEY='{SECRETS['SUPABASE_SECRET_KEY']}'\n"
        'FUNCTION_BASE_IMAGE="python312"\n'
        "WORKER_ID=$(touch ran)\n"
        "SMOKE_EMAIL=\n"
    )
    ran = cloud.deploy("functions", "jobs-recent", "--env-file", str(file), SUPABASE_SECRET_KEY=None)
    assert ran.code == 0, ran.err
    (call,) = [c for c in ran.calls if c.startswith("gcloud run deploy ")]
    assert option(call, "--project") == "other-project", "the file goes before the environment"
    assert option(call, "--base-image") == "python312"
    assert not list(cloud.folder.rglob("ran"))
    file.write_text("GOOGLE_CLOUD_PROJEKT=x\n")
    wrong = cloud.deploy("all", "--env-file", str(file))
    assert (wrong.code, "line 1: there is no variable GOOGLE_CLOUD_PROJEKT" in wrong.err) == (2, True)


@pytest.mark.soak
def test_after_a_failure_of_any_step_the_next_run_completes_it(tmp_path: Path) -> None:
    """Each kind of change fails once, in a cloud of its own; the end is the same as without any failure."""

    def state(cloud: Cloud) -> dict[str, str]:
        """What is deployed. Passwords are random, and a failure may cost a revision."""
        fake = cloud.folder / "fake"
        files = [
            path for name in ("services", "pools", "edge", "secrets") for path in (fake / name).rglob("*")
        ]
        skipped = re.compile(r"count|newest|serving|pinned|tag\..*|label\.before|\d+")
        return {
            str(path.relative_to(fake)): path.read_text() for path in files if path.is_file() and not skipped.fullmatch(path.name)
        }  # fmt: skip

    with cloud_in(tmp_path / "clean") as clean:
        called = clean.deploy("all").changes()
    kinds = dict.fromkeys(
        re.sub(r"^(curl|(?:\S+ ){2,3}[\w-]*).*", r"\1", call, flags=re.DOTALL).strip() for call in called
    )
    assert len(kinds) > 12
    for number, kind in enumerate(kinds):
        with cloud_in(tmp_path / f"broken-{number}", int(clean.url.rpartition(":")[2])) as cloud:
            cloud.fail(f"{kind}*")
            failed = cloud.deploy("all")
            assert failed.code == 1, kind
            assert "Next: " in failed.err
            cloud.fail()
            mended = cloud.deploy("all")
            assert mended.code == 0, f"{kind}: {mended.err}"
            assert state(cloud) == state(clean), kind
            assert cloud.deploy("all").changes() == [], kind
        shutil.rmtree(cloud.folder)
