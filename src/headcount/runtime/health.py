"""The health check of a container, whatever role runs in it: `python -m headcount.runtime.health`.

It ends with 0 when the role's event loop has lately touched the file named by HEADCOUNT_HEARTBEAT_FILE and
the address in it, if there is one, answers 200; else with 1 and the reason. A text that is no address is a
reason itself. `--alive` asks for the
file only. It runs every few seconds in each container: nothing but the standard library is loaded.
"""

from __future__ import annotations

import http.client
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

from headcount.settings.environment import HEARTBEAT_FILE, variable

BEAT_S = 1.0
#: An event loop that has not touched the file for this time hangs.
HANGS_S = 10.0
#: Within this the address must answer; the container's own check gives up after 4 s.
ANSWER_S = 3.0


def problem(path: Path, now_s: float, *, alive: bool = False) -> str:
    """Why the role isn't healthy; "" if it is.

    Args:
        path: the file that it touches.
        now_s: Unix seconds.
        alive: ask only whether its event loop runs.
    """
    try:
        age_s, url = now_s - path.stat().st_mtime, path.read_text()
    except OSError as error:
        return f"no sign of life: {error}"
    if age_s > HANGS_S:
        return f"hangs: the last sign of life is {age_s:.0f} s old"
    if alive or not url:
        return ""
    return _asked(url) if url.startswith("http") else url


def _asked(url: str) -> str:
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.netloc, timeout=ANSWER_S)
    if address.scheme == "https":
        import ssl  # noqa: PLC0415  # costs a hundredth of a second, and most roles don't need it

        # our own machine's loopback address, where the certificate's name is meaningless
        context = ssl._create_unverified_context()  # noqa: S323, SLF001
        connection = http.client.HTTPSConnection(address.netloc, timeout=ANSWER_S, context=context)
    try:
        connection.request("GET", address.path + (f"?{address.query}" if address.query else ""))
        answer = connection.getresponse()
        text = answer.read(1000).decode(errors="replace").strip()
    except (OSError, http.client.HTTPException) as error:
        return f"{url}: {error}"
    finally:
        connection.close()
    return "" if answer.status == 200 else f"{url}: {answer.status} {text}"


if __name__ == "__main__":
    name = variable(HEARTBEAT_FILE)
    reason = (
        problem(Path(name), time.time(), alive="--alive" in sys.argv)
        if name
        else f"{HEARTBEAT_FILE} is not set"
    )
    sys.stdout.write(reason or "healthy")
    sys.exit(bool(reason))
