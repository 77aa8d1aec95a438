"""The first job of docs/deploy.md, as it stands there, on this stack instead of a hosted project."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from deploy.stage import ROOT
from tests.stack import Stack


@pytest.mark.skipif(not (shutil.which("curl") and shutil.which("jq")), reason="its commands need curl and jq")
def test_the_first_job_ends_in_a_signed_url_of_the_picture(stack: Stack, tmp_path: Path) -> None:
    guide = (ROOT / "docs" / "deploy.md").read_text()
    (script,) = [text for text in re.findall(r"```sh\n(.*?)```", guide, re.DOTALL) if "task-assign" in text]
    address, page = 'URL="https://$SUPABASE_PROJECT_REF.supabase.co"', '"url": "https://supabase.com"'
    assert address in script
    assert page in script
    script = script.replace(address, f"URL={stack.env['SUPABASE_URL']}").replace(
        page, '"html": "<h1>the first job</h1>"'
    )
    (tmp_path / "deploy.env").write_text(
        "GOOGLE_CLOUD_PROJECT=my-project\nSUPABASE_PROJECT_REF=abcdefghijklmnopqrst\n"
        f"SUPABASE_PUBLISHABLE_KEY={stack.env['SUPABASE_PUBLISHABLE_KEY']}\nOWNER_EMAIL={stack.env['DEMO_EMAIL']}\n"
    )
    gcloud = tmp_path / "gcloud"
    gcloud.write_text(
        '#!/bin/sh\ntest "$*" = "secrets versions access latest --secret sidejob-owner-password --project my-project" &&\n'
        f"printf %s '{stack.env['DEMO_PASSWORD']}'\n"
    )
    gcloud.chmod(0o755)
    ran = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=tmp_path, env={"PATH": f"{tmp_path}:{os.environ['PATH']}"}, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert stack.http.get(ran.stdout.splitlines()[-1]).content.startswith(b"\x89PNG")
