"""The API while the bucket of the history does not answer."""

from __future__ import annotations

from pathlib import Path

import pytest

from api_fixture import open_api


async def test_live_counts_do_not_depend_on_the_history(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The API starts and serves sites; only answers from the history are problems."""
    for name, value in {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_ALLOW_HTTP": "true",
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "unseen",
    }.items():
        monkeypatch.setenv(name, value)
    async with open_api(tmp_path, history="s3://bucket/campus", smallest_shown=5) as api:
        assert (await api.http.get(f"/v1/sites/{api.site.id}")).status_code == 200
        answer = await api.http.get(f"/v1/sites/{api.site.id}/history")
        assert answer.status_code == 500
        assert answer.json()["type"].endswith("history-unreadable")
        assert "unseen" not in answer.text
