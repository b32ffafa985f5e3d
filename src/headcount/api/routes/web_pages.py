"""The web pages: the built map, or, if it is not built, a plain table of the live counts (`counts_table.html`)."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.datastructures import Headers
from starlette.types import Scope

from headcount.api.middleware.security_headers import CONTENT_SECURITY_POLICY

#: Served where the map is not built.
_PAGE = Path(__file__).with_name("counts_table.html").read_text(encoding="utf-8")
_SCRIPT = _PAGE.partition("<script>")[2].partition("</script>")[0]
_HASH = base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()
_POLICY = f"{CONTENT_SECURITY_POLICY}; script-src 'self' 'sha256-{_HASH}'"


#: Pages whose address is not the name of their file.
PAGE_FILES = {"me": "me.html", "docs": "docs.html", "privacy": "privacy.html"}
#: Suffixes of the compressed forms of each file, which the build adds (web/vite.config.ts), the smallest first.
_COMPRESSED = {"br": ".br", "gzip": ".gz"}


class WebFiles(StaticFiles):
    """The files of the built map. Names in `assets/` contain a hash of the content."""

    async def serve(self, path: str, request: Request) -> Response:
        """Return a file with its caching headers.

        Raises:
            HTTPException: 404, the file does not exist.
        """
        answer = await self.get_response(
            self.get_path({**request.scope, "path": path, "root_path": ""}), request.scope
        )
        forever = path.startswith("assets/")
        answer.headers["cache-control"] = "public, max-age=31536000, immutable" if forever else "no-cache"
        answer.headers.add_vary_header("Accept-Encoding")
        return answer

    def file_response(
        self,
        full_path: str | os.PathLike[str],
        stat_result: os.stat_result,
        scope: Scope,
        status_code: int = 200,
    ) -> Response:
        """Return a file, compressed where the browser accepts it."""
        accepted = Headers(scope=scope).get("accept-encoding", "")
        for coding, suffix in _COMPRESSED.items():
            smaller = Path(f"{os.fspath(full_path)}{suffix}")
            if coding in accepted and smaller.is_file():
                answer = super().file_response(smaller, smaller.stat(), scope, status_code)
                if answer.status_code != 304:
                    answer.headers["content-encoding"] = coding
                return answer
        return super().file_response(full_path, stat_result, scope, status_code)


def install(app: FastAPI, folder: Path, embed_origins: Sequence[str]) -> None:
    """Serve the pages; to be called last, because it matches every other path.

    Pages of `embed_origins` may show the map in a frame, where a browser sends no cookie: it has public counts only.
    """
    web = WebFiles(directory=folder, html=True, check_dir=False)

    async def page(request: Request) -> Response:
        path: str = request.path_params["path"]
        if path == "" and not (folder / "index.html").is_file():
            return HTMLResponse(
                _PAGE, headers={"content-security-policy": _POLICY, "cache-control": "no-cache"}
            )
        answer = await web.serve(PAGE_FILES.get(path, path), request)
        if path == "" and embed_origins:
            ancestors = f"frame-ancestors 'self' {' '.join(embed_origins)}"
            policy = CONTENT_SECURITY_POLICY.replace("frame-ancestors 'none'", ancestors)
            answer.headers["content-security-policy"] = policy
        return answer

    app.router.add_route("/{path:path}", page, methods=["GET"], include_in_schema=False)
