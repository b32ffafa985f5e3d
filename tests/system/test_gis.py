"""GDAL, which QGIS uses too, reads a running headcount as OGC API - Features."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import nats
import pyogrio
import pytest
import shapely

from headcount.messages.fixes import encode_fix
from headcount.sites.files import load_site
from system.running import UL, Up
from waiting import wait_until

#: In the library of the site that comes with headcount.
LIBRARY = "glucksman-library"
LAT, LON = 52.67345, -8.57312
PEOPLE = 3


async def _send(up: Up) -> None:
    """Fixes of some people, as the broker's own side may send them."""
    client = await nats.connect(
        f"nats://127.0.0.1:{up.ports['nats']}", user="headcount", password=up.password
    )
    for n in range(PEOPLE):
        handle = "abcdefghijklmnopqrs" + "234567"[n]
        await client.publish(f"headcount.ul.person.{handle}.fix", encode_fix(time.time(), LAT, LON, acc=5.0))
    await client.flush()
    await client.close()


@pytest.mark.slow
def test_gdal_reads_zones_and_counts(tmp_path: Path) -> None:
    """GDAL's OAPIF driver lists the collections, and reads zones and counts with a bounding box and with filters."""
    zones = load_site(UL).zones
    box = (LON - 1e-4, LAT - 1e-4, LON + 1e-4, LAT + 1e-4)
    at_library = {zone.id for zone in zones if zone.geometry.intersects(shapely.box(*box))}
    with Up(tmp_path) as up:
        asyncio.run(_send(up))
        wait_until(lambda: up.counts().get(LIBRARY) == (PEOPLE, 0), "the people are counted")
        address = f"OAPIF:http://127.0.0.1:{up.ports['http']}/ogc"

        def read(layer: str, **options: Any) -> dict[str, dict[str, Any]]:
            meta, _, shapes, columns = pyogrio.raw.read(address, layer=layer, **options)
            assert meta["crs"] in ("EPSG:4326", "OGC:CRS84")
            rows = zip(*columns, shapes, strict=True)
            return {row[0]: dict(zip([*meta["fields"], "geometry"], row, strict=True)) for row in rows}

        layers = {str(name) for name, _ in pyogrio.list_layers(address)}
        assert layers == {"ul.zones", "ul.counts", "ul.history", "ul.fixes"}
        found = read("ul.zones")
        assert found.keys() == {zone.id for zone in zones}
        for zone in zones:
            assert shapely.equals(shapely.from_wkb(found[zone.id]["geometry"]), zone.geometry)
        for layer in ("ul.zones", "ul.counts"):
            assert read(layer, bbox=box).keys() == at_library
            assert read(layer, where=f"zone = '{LIBRARY}'").keys() == {LIBRARY}
            assert read(layer, bbox=box, where="name LIKE 'Gluck%'").keys() == {LIBRARY}
        counts = read("ul.counts", where="person_count > 0")
        assert {id_: row["person_count"] for id_, row in counts.items()} == {
            id_: people for id_, (people, _) in up.counts().items() if people
        }
