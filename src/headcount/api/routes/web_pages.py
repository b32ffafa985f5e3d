"""The web pages: the built map, or, if it is not built, a plain table of the live counts."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, Response
from fastapi.staticfiles import StaticFiles

from headcount.api.middleware.security_headers import CONTENT_SECURITY_POLICY

_SCRIPT = """
const rows = new Map();
const table = document.querySelector("tbody");
const state = document.querySelector("#state");
const title = document.querySelector("h1");
function show(zone) {
  let row = rows.get(zone.zone);
  if (!row) {
    row = table.insertRow();
    const head = document.createElement("th");
    head.scope = "row";
    head.textContent = zone.zone;
    row.append(head, document.createElement("td"), document.createElement("td"));
    rows.set(zone.zone, row);
  }
  row.cells[1].textContent = zone.person.count ?? "?";
  row.cells[2].textContent = zone.vehicle.count ?? "?";
}
async function start() {
  const site = (await (await fetch("/v1/sites")).json()).sites[0];
  title.textContent = site.name;
  document.title = "headcount: " + site.name;
  const stream = new EventSource(site.links.stream);
  stream.addEventListener("counts", (event) => {
    const counts = JSON.parse(event.data);
    counts.zones.forEach(show);
    const late = counts.partitions_fresh < counts.partitions_total;
    state.textContent = (late ? "Outdated, from " : "Live, ") + new Date(counts.at).toLocaleTimeString();
  });
  stream.addEventListener("error", () => { state.textContent = "Reconnecting …"; });
}
start().catch(() => { state.textContent = "The server does not answer; reload the page."; });
"""
_PAGE = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>headcount</title>
<style>
body {{ font: 1rem/1.5 system-ui, sans-serif; max-width: 40rem; margin: 2rem auto; padding: 0 1rem;
  color: #111; background: #fff; }}
table {{ border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }}
th, td {{ text-align: right; padding: .25rem .5rem; border-bottom: 1px solid #ccc; }}
th:first-child {{ text-align: left; font-weight: normal; }}
</style>
</head>
<body>
<h1>headcount</h1>
<p id="state" role="status">Connecting …</p>
<p>The map is not built. Build it with <code>make web</code> in the checkout (this needs Node.js
and npm), then reload this page. The API is described in <a href="/openapi.json">/openapi.json</a>.</p>
<table>
<thead><tr><th scope="col">Zone</th><th scope="col">People</th><th scope="col">Vehicles</th></tr></thead>
<tbody></tbody>
</table>
<noscript>Without JavaScript, the counts are at <a href="/v1/sites">/v1/sites</a>.</noscript>
<script>{_SCRIPT}</script>
</body>
</html>
"""
_HASH = base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()
_POLICY = f"{CONTENT_SECURITY_POLICY}; script-src 'self' 'sha256-{_HASH}'"


#: Pages whose address is not the name of their file.
PAGE_FILES = {"me": "me.html"}


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
        return answer


def install(app: FastAPI, folder: Path) -> None:
    """Serve the pages; to be called last, because it matches every other path."""
    web = WebFiles(directory=folder, html=True, check_dir=False)

    async def page(request: Request) -> Response:
        path: str = request.path_params["path"]
        if path == "" and not (folder / "index.html").is_file():
            return HTMLResponse(
                _PAGE, headers={"content-security-policy": _POLICY, "cache-control": "no-cache"}
            )
        return await web.serve(PAGE_FILES.get(path, path), request)

    app.router.add_route("/{path:path}", page, methods=["GET"], include_in_schema=False)
