"""Authentication and limits of devices that send over HTTP; the system tests cover the log."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest

from headcount.api.routes.ingest import VERDICT_HEADER
from headcount.devices import credentials
from person_fixture import People, Phone, open_people
from waiting import until

#: Nothing to store: the core of these tests has no mapping of topics to the log.
NO_FIXES = "[]"


async def send(people: People, phone: Phone, secret: str | None = None) -> httpx.Response:
    """A request of a device, through a balancer."""
    headers = phone.headers(secret) | {"content-type": "application/json", "x-forwarded-for": "192.0.2.7"}
    return await people.api.http.post("/v1/fixes", content=NO_FIXES, headers=headers)


@pytest.mark.usefixtures("no_refill")
async def test_an_address_has_no_limit_until_it_is_refused(tmp_path: Path) -> None:
    """Devices behind one address share no limit; after 20 refusals, the address has that of other clients."""
    async with open_people(tmp_path, requests_per_s=1.0) as people:
        phones = [await people.phone() for _ in range(20)]
        answers = await asyncio.gather(*(send(people, phone) for phone in phones))
        assert [answer.status_code for answer in answers] == [200] * 20
        refused = [(await send(people, phone, "wrong")).status_code for phone in phones]
        assert refused == [401] * 20
        later = [(await send(people, phones[0])).status_code for _ in range(6)]
        assert later == [200] * 5 + [429]


@pytest.mark.usefixtures("no_refill")
async def test_ingest_keys_cannot_be_guessed_without_end(tmp_path: Path) -> None:
    """After 20 unknown keys an address gets 429, while a valid key still works from there."""
    async with open_people(tmp_path) as people:
        phone = await people.phone()
        key = await people.api.services.registry.create_ingest_key(phone.id)
        wrong = credentials.ingest_key(phone.id, credentials.new_secret())
        found = [await people.api.get("/v1/osmand", params={"id": wrong}) for _ in range(25)]
        assert [answer.status_code for answer in found] == [400] * 20 + [429] * 5
        assert int(found[-1].headers["retry-after"]) >= 1
        answer = await people.api.get("/v1/osmand", params={"id": key, "alarm": "sos"})
        assert (answer.status_code, answer.content) == (200, b"")
        assert answer.headers[VERDICT_HEADER] == "ignored"


async def test_pages_of_other_origins_cannot_send(tmp_path: Path) -> None:
    """A browser's page of another origin is refused, even with the device's password."""
    async with open_people(tmp_path) as people:
        phone = await people.phone()
        headers = phone.headers() | {"origin": "https://elsewhere.example"}
        answer = await people.api.http.post("/v1/fixes", content=NO_FIXES, headers=headers)
        assert answer.json()["type"] == "/problems/cross-site"
        assert "access-control-allow-origin" not in answer.headers


async def test_devices_of_a_removed_site(tmp_path: Path) -> None:
    """A program gets 404; an app gets 200, because it would repeat anything else for ever."""
    async with open_people(tmp_path) as people:
        phone = Phone(*await people.api.services.registry.add("gone", "person"))
        key = await people.api.services.registry.create_ingest_key(phone.id)

        async def known() -> httpx.Response | None:
            answer = await send(people, phone)
            return None if answer.status_code == 503 else answer

        answer = await until(known, "the sites are read")
        assert (answer.status_code, answer.json()["type"]) == (404, "/problems/unknown-site")
        query = {"id": key, "lat": "52.67", "lon": "-8.57"}
        answer = await people.api.get("/v1/osmand", params=query)
        assert (answer.status_code, answer.headers[VERDICT_HEADER]) == (200, "inactive")


async def test_paused_devices_are_not_stored(tmp_path: Path) -> None:
    """The fixes of a paused device are discarded: 422 for a program, 200 for an app."""
    async with open_people(tmp_path) as people:
        phone = await people.phone()
        key = await people.api.services.registry.create_ingest_key(phone.id)
        assert (await people.ask(phone, "POST", "/v1/me/pause")).status_code == 200
        answer = await people.ask(phone, "POST", "/v1/fixes", json={"lat": 52.67, "lon": -8.57})
        assert answer.status_code == 422
        assert answer.json()["errors"] == [{"parameter": "0", "problem": "inactive: paused"}]
        query = {"id": key, "lat": "52.67", "lon": "-8.57"}
        answer = await people.api.get("/v1/osmand", params=query)
        assert (answer.status_code, answer.headers[VERDICT_HEADER]) == (200, "inactive")
        exported = (await people.ask(phone, "GET", "/v1/me/export")).text
        assert "scrypt" not in exported
