"""The options of signing in: the identity provider of the web page, and from where requests come."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

Command = Callable[..., None]

_OPTIONS: dict[str, dict[str, Any]] = {
    "public_url": {
        "default": "",
        "show_default": "as they ask for it",
        "help": "Address under which browsers reach it: https://headcount.example.",
    },
    "trusted_proxies": {
        "default": "",
        "show_default": "this machine only",
        "help": "Networks of balancers whose X-Forwarded-For counts: 10.0.0.0/8,fd00::/8.",
    },
    "requests_per_s": {
        "type": float,
        "default": 100.0,
        "help": "HTTP requests a second of each token and address; five seconds' at once.",
    },
    "oidc_issuer": {
        "default": "",
        "show_default": "nobody logs in",
        "help": "Identity provider (OpenID Connect) that people log in with: its issuer.",
    },
    "oidc_client_id": {"default": "headcount", "help": "Our name at the identity provider."},
    "oidc_client_secret_file": {
        "type": click.Path(path_type=Path, dir_okay=False),
        "show_default": "none",
        "help": "File with our secret there.",
    },
    "oidc_role_claim": {
        "default": "groups",
        "help": "Claim of the ID token whose values headcount-ROLE and headcount-ROLE-SITE give rights.",
    },
}


def sign_in_options(function: Command) -> Command:
    """All of them, for a command that makes settings of its arguments."""
    for name, settings in reversed(_OPTIONS.items()):
        common = {"envvar": f"HEADCOUNT_{name.upper()}", "show_envvar": True, "show_default": True}
        function = click.option(f"--{name.replace('_', '-')}", **{**common, **settings})(function)
    return function
