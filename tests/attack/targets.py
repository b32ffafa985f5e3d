"""Everything that reads bytes from outside, as functions of bytes that must never raise."""

from __future__ import annotations

import base64
from collections.abc import Callable

import numpy as np

from headcount.counting.engine import Engine
from headcount.counting.zone_lookup import ZoneLookup
from headcount.decoders import formats, iotp
from headcount.decoders.canonical import Outcome
from headcount.decoders.device_aliases import AliasResolver
from headcount.decoders.plugin_results import decode_results, encode_results
from headcount.decoding import Decoded, DecodedFix, DecodeError, Ignored, Message
from headcount.devices.auth_callout import decode_request
from headcount.devices.commands import decode_ack
from headcount.devices.credentials import sign_token, token_key, verify_secret, verify_token
from headcount.devices.csv_table import parse_devices
from headcount.devices.registry_cache import RegistryCache
from headcount.errors import DeviceError, ProtocolError
from headcount.messages.fixes import VERDICTS
from headcount.messaging import payloads
from headcount.messaging.parser import ProtocolParser
from headcount.messaging.raw_batch import RawBatch
from small_site import small_site

SECOND_NS = 10**9
NOW_S = 1_800_000_000
_SITE = small_site()
_ZONES = ZoneLookup(_SITE)
_NAMES = AliasResolver("a secret for fuzzing", RegistryCache(), _SITE.id)
_KEY = token_key("a secret for fuzzing")


def fix(data: bytes) -> None:
    """Payloads of fixes, through the engine: each gets a verdict, counts stay within the number of devices."""
    parts = data.split(b"\xff")[:8]
    n = len(parts)
    prefix = b"fix.0.%b." % _SITE.id.encode()
    subjects = [prefix + b"person.p%d" % (number % 3) for number in range(n)]
    received = np.arange(n, dtype=np.int64) * SECOND_NS + NOW_S * SECOND_NS
    read = payloads.decode(_SITE.id.encode(), RawBatch(0, subjects, parts, np.arange(1, n + 1), received))
    engine = Engine(_SITE, _ZONES)
    engine.set_prefix(prefix)
    slots = engine.slots(read.names, lambda _: True)
    step = engine.step(read, slots)
    _require(bool((step.verdicts < len(VERDICTS)).all()), "a fix without a verdict")
    counts = engine.counts(float(NOW_S + n))
    _require(counts.min() >= 0 and counts.max() <= 3, "more are counted than there are")


def status(data: bytes) -> None:
    """Last wills and whatever else stands on a status topic."""
    prefix = b"fix.0.s."
    subjects = [prefix + b"person.a.status", prefix + b"person.a"]
    received = np.full(2, NOW_S * SECOND_NS, dtype=np.int64)
    read = payloads.decode(b"s", RawBatch(0, subjects, [data, data], np.arange(1, 3), received))
    _require(len(read) == 2, "a row is missing")


def protocol(data: bytes) -> None:
    """Bytes of a NATS server: parsed, or rejected as a protocol error; never more than was sent."""
    parser = ProtocolParser()
    size = 1 + data[0] if data else 1
    try:
        for start in range(0, len(data), size):
            parser.feed(data[start : start + size])
    except ProtocolError:
        return


def owntracks_message(data: bytes) -> None:
    """OwnTracks messages of any topic."""
    topic, _, payload = data.partition(b"\n")
    _require(bool(_outcomes(0, topic.decode(errors="replace"), payload)), "no outcome")


def iotp_message(data: bytes) -> None:
    """The older flows' messages, plain and wrapped."""
    for topic in iotp.KIND_OF_TOPIC:
        _require(len(_outcomes(1, topic, data)) == 1, "no outcome")


def _outcomes(number: int, topic: str, payload: bytes) -> list[Outcome]:
    """The outcomes of a message in a shipped format."""
    format_ = formats.SHIPPED[number]
    decoded = formats.decode_message(format_, payload, Message(topic, float(NOW_S)))
    return [_NAMES.outcome(format_.name, each) for each in decoded]


def plugin_results(data: bytes) -> None:
    """Answers of a decoder's process: results, or rejections."""
    _require(all(isinstance(each, Decoded) for each in decode_results(data)), "no result")


def forget(data: bytes) -> None:
    """Markers of erased devices: decoded, or ignored."""
    prefix = b"fix.0.s."
    received = np.full(1, NOW_S * SECOND_NS, dtype=np.int64)
    read = payloads.decode(
        prefix, RawBatch(0, [b"fix.0.forget"], [data], np.ones(1, dtype=np.int64), received)
    )
    _require(len(read) == 1, "a row is missing")


def callout(data: bytes) -> None:
    """Auth callouts with arbitrary content: decoded, or rejected."""
    body = base64.urlsafe_b64encode(data).rstrip(b"=")
    for question in (data, b"e30." + body + b".c2ln"):
        found = decode_request(question)
        _require(found is None or isinstance(found.password, str), "half a request")


def credential(data: bytes) -> None:
    """Passwords, signed tokens, API tokens' hashes: valid or invalid."""
    text = data.decode(errors="replace")
    _require(verify_token(_KEY, text, float(NOW_S)) is None, "a token that we haven't made")
    _require(not verify_secret("right", text), "a hash that we haven't made")


def ack(data: bytes) -> None:
    """Answers to commands: read, or none."""
    found = decode_ack(data)
    _require(found is None or (len(found.id) <= 64 and len(found.text) <= 4096), "too long an answer")


def table(data: bytes) -> None:
    """A table of devices: rows, or one error that names the lines."""
    try:
        rows = parse_devices(data.decode(errors="replace"), "ul")
    except DeviceError as error:
        _require(bool(str(error)), "an error without words")
        return
    _require(len(rows) > 0, "no rows and no error")


def _require(condition: bool, problem: str) -> None:
    if not condition:
        raise AssertionError(problem)


Target = Callable[[bytes], None]
TARGETS: dict[str, Target] = {
    "fix": fix,
    "status": status,
    "protocol": protocol,
    "owntracks": owntracks_message,
    "iotp": iotp_message,
    "plugin_results": plugin_results,
    "forget": forget,
    "callout": callout,
    "credential": credential,
    "ack": ack,
    "table": table,
}
#: Beginnings that get the fuzzer past the first brace.
SEEDS: dict[str, tuple[bytes, ...]] = {
    "fix": (
        b'{"_type":"location","tst":1800000000,"lat":52.67,"lon":-8.57,"acc":5,"t":1800000000.5}',
        b'{"tst":1800000001,"lat":52.67,"lon":-8.57}\xff{"tst":1e99,"lat":1e400,"lon":null}',
    ),
    "status": (b"online", b"offline"),
    "protocol": (
        b"\x40MSG fix.0.s.person.a 1 $JS.ACK.FIX_0.c.1.5.5.1800000000000000000.0 2\r\n{}\r\n",
        b"\x08HMSG fix.0.s.person.a 1 $JS.ACK.FIX_0.c.1.5.5.1800000000000000000.0 12 14\r\nNATS/1.0\r\n\r\n{}\r\n",
    ),
    "owntracks": (b'owntracks/a/b\n{"_type":"location","tst":1,"lat":1,"lon":2,"tid":"ab","acc":3}',),
    "iotp": (b'{"id":"car-7","lat":52.67,"lon":-8.57,"t":1732453200}', b"eyJpZCI6ImEifQ=="),
    "plugin_results": (encode_results([DecodedFix("a", 1.0, 2.0, 3.0), Ignored("x"), DecodeError("y")]),),
    "forget": (b'{"kind":"person","pseudonyms":{"20000":"0123456789abcdef"}}',),
    "callout": (
        (
            b'{"exp":1,"nats":{"user_nkey":"U","server_id":{"id":"N"},"client_info":{"mqtt_id":"a","host":"h"},'
            b'"connect_opts":{"user":"a","pass":"b"},"client_tls":{"verified_chains":[["-----BEGIN CERTIFICATE-----"]]}}}'
        ),
    ),
    "credential": (
        sign_token(token_key("another secret"), "a2b3c4d5e6f7a2b3c4d5", NOW_S + 9.0, NOW_S - 9.0).encode(),
        b"$7$101$YWJjYWJjYWJjYWJj$YWJj",
    ),
    "ack": (b'{"id":"abc","ok":true,"text":"done"}',),
    "table": (b"kind,label,groups\nperson,Ada,a;b\nvehicle,=1+1,\n", b'kind\n"person'),
}


#: Words that random bytes hardly ever hit upon: JSON, the fields, numbers at the edge, NATS' verbs.
DICTIONARY = (
    *(b'"%s":' % name for name in (b"tst", b"t", b"lat", b"lon", b"acc", b"id", b"payload", b"d", b"_type")),
    *(
        b"null",
        b"true",
        b"1e400",
        b"-0.0",
        b"1e-400",
        b"NaN",
        b"Infinity",
        b"9007199254740993",
        b"[[[[",
        b"}}",
    ),
    *(b'"\\\\ud800"', b'"location"', b'"lwt"', b'"transition"', b'"2026-11-24T13:00:00Z"', b"1800000000"),
    *(b"MSG ", b"HMSG ", b"PING\\x0d\\x0a", b"\\x0d\\x0a", b"NATS/1.0", b"$JS.ACK.", b"Nmqtt-Pub: 1"),
)
