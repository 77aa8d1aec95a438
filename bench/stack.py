"""The running stack, as the measurements need it: its addresses, signed-in headers, and its database."""

import os
from functools import cache

import httpx
import psycopg

SUPABASE_URL = os.environ["SUPABASE_URL"]
FUNCTIONS_URL = os.environ["FUNCTIONS_URL"]


@cache
def client() -> httpx.Client:
    return httpx.Client(timeout=30)


@cache
def member_headers() -> dict[str, str]:
    """Headers of the demo workspace's member, with a fresh access token."""
    key = os.environ["SUPABASE_PUBLISHABLE_KEY"]
    answer = client().post(
        f"{SUPABASE_URL}/auth/v1/token?grant_type=password",
        headers={"apikey": key},
        json={"email": os.environ["DEMO_EMAIL"], "password": os.environ["DEMO_PASSWORD"]},
    )
    answer.raise_for_status()
    return {"apikey": key, "Authorization": f"Bearer {answer.json()['access_token']}"}


def fetch(method: str, url: str, **more: object) -> httpx.Response:
    answer = client().request(method, url, headers=member_headers(), **more)  # type: ignore[arg-type]
    answer.raise_for_status()
    return answer


def database() -> psycopg.Connection[tuple[object, ...]]:
    return psycopg.connect(os.environ["SUPABASE_DB_URL"], autocommit=True)
