"""Which Figma a stack's worker asks, and with what."""

from pathlib import Path

import pytest

from local.figma.world import TOKEN
from local.layout import Layout
from local.programs import worker
from worker.settings import Settings

LAYOUT = Layout(Path("/nowhere"), 7000, "18", 1, True)
ENV = {
    "SUPABASE_URL": "http://127.0.0.1:1", "SUPABASE_PUBLISHABLE_KEY": "sb_publishable_x",
    "FUNCTIONS_URL": "http://127.0.0.1:1/functions/v1", "WORKER_EMAIL": "w@example.com", "WORKER_PASSWORD": "x",
}  # fmt: skip
OURS, THEIRS, FIGMA = "http://127.0.0.1:61326", "http://127.0.0.1:9", "https://api.figma.com"


@pytest.mark.parametrize(
    ("given", "url", "token"),
    [
        ({}, OURS, TOKEN),
        ({"FIGMA_API_TOKEN": "", "FIGMA_API_URL": ""}, OURS, TOKEN),
        ({"FIGMA_API_TOKEN": "figd_theirs"}, FIGMA, "figd_theirs"),
        ({"FIGMA_API_URL": THEIRS}, THEIRS, TOKEN),
        ({"FIGMA_API_URL": THEIRS, "FIGMA_API_TOKEN": "figd_theirs"}, THEIRS, "figd_theirs"),
    ],
    ids=["nothing", "empty", "token", "url", "both"],
)
def test_the_stacks_own_figma_is_asked_unless_another_is_named(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], url: str, token: str
) -> None:
    for name in ("FIGMA_API_URL", "FIGMA_API_TOKEN", "FIGMA_ALLOWED_FILES"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    settings = Settings.read(worker(LAYOUT, ENV, 0).environment)
    assert (settings.figma_url, settings.figma_token) == (url, token)
    assert settings.figma_files == {"*"}


def test_the_allowed_files_and_the_limits_are_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIGMA_ALLOWED_FILES", "u9VG9NhC6C8hVJYx8o9rpS, anotherfile12")
    monkeypatch.setenv("FIGMA_TIER1_PER_MINUTE", "20")
    settings = Settings.read(worker(LAYOUT, ENV, 0).environment)
    assert settings.figma_files == {"u9VG9NhC6C8hVJYx8o9rpS", "anotherfile12"}
    assert settings.figma_tier1 == 20
