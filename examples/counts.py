"""Print the five busiest zones, live: `python examples/counts.py [http://127.0.0.1:8080]`."""

import json
import sys
import urllib.request

base = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8080"
with urllib.request.urlopen(f"{base}/v1/sites") as answer:
    site = json.load(answer)["sites"][0]
people: dict[str, int] = {}  # small public counts ("<5" or null) become 0

with urllib.request.urlopen(base + site["links"]["stream"]) as stream:
    for line in stream:  # server-sent events: payload lines start with "data: "
        if not line.startswith(b"data: "):
            continue
        update = json.loads(line[6:])
        for zone in update.get("zones", []):  # a ping has none
            count = zone["person"]["count"]
            people[zone["zone"]] = count if isinstance(count, int) else 0
        people.pop("site", None)  # the whole campus
        busiest = sorted(people, key=lambda zone: (-people[zone], zone))[:5]
        print(update["at"], "  ".join(f"{zone} {people[zone]}" for zone in busiest), flush=True)
