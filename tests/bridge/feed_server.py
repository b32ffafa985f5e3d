"""A feed of vehicle positions, served by the standard library's HTTP server.

`feed_server.py PORT` serves a shuttle in a building of the University of Limerick.
"""

from __future__ import annotations

import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from google.transit import gtfs_realtime_pb2 as gtfs


class FeedServer(ThreadingHTTPServer):
    """Serves a feed with an ETag."""

    def __init__(self, port: int = 0) -> None:
        """Listen on a port, by default a free one."""
        super().__init__(("127.0.0.1", port), _Handler)
        self.body, self.status = b"", 200
        self.answers: list[int] = []
        self.requests: list[dict[str, str]] = []

    def serve_positions(self, *vehicles: dict[str, Any]) -> None:
        """Replace the feed by these positions."""
        feed = gtfs.FeedMessage()
        feed.header.gtfs_realtime_version, feed.header.timestamp = "2.0", 1_795_900_000
        for number, each in enumerate(vehicles):
            entity = feed.entity.add(id=str(number))
            entity.vehicle.vehicle.id = each["id"]
            if "t" in each:
                entity.vehicle.timestamp = each["t"]
            if "lat" in each:
                entity.vehicle.position.latitude, entity.vehicle.position.longitude = each["lat"], each["lon"]
                if "speed" in each:
                    entity.vehicle.position.speed, entity.vehicle.position.bearing = each["speed"], 90.0
        self.body = feed.SerializeToString()


class _Handler(BaseHTTPRequestHandler):
    server: FeedServer

    def do_GET(self) -> None:
        server, etag = self.server, f'"{hash(self.server.body)}"'
        server.requests.append({name.lower(): value for name, value in self.headers.items()})
        status = 304 if self.headers.get("If-None-Match") == etag else server.status
        server.answers.append(status)
        self.send_response(status)
        if status == 200:
            self.send_header("ETag", etag)
            self.send_header("Content-Length", str(len(server.body)))
        self.end_headers()
        if status == 200:
            self.wfile.write(server.body)

    def log_message(self, *_: object) -> None:
        """Print nothing."""


if __name__ == "__main__":
    feed_server = FeedServer(int(sys.argv[1]))
    feed_server.serve_positions({"id": "shuttle-1", "t": int(time.time()), "lat": 52.67345, "lon": -8.57312})
    feed_server.serve_forever()
