"""The rate limits of the API."""

from __future__ import annotations

import math
import time

from headcount.access.rate_limiter import BURST_FIXES, GATEWAY_FACTOR, RateLimiter, RateLimitResult
from headcount.api.schemas.problems import TOO_OFTEN, ProblemError
from headcount.messages.records import Device

#: A page loads some dozens of resources at the same time.
BURST_S = 5.0


class ApiRateLimits:
    """The rate limits of one API."""

    def __init__(self, requests_per_s: float, device_fixes_per_s: float) -> None:
        """Allow each token and address requests, with bursts of five seconds' worth, and each device fixes."""
        self.requests = RateLimiter(requests_per_s, max(1, round(BURST_S * requests_per_s)))
        #: Failed authentications of an address. Guessing a secret is hopeless; this limits noise.
        self.failures = RateLimiter(0.2, 20)
        #: Requests with fixes of an address that were not authenticated.
        self.refused_devices = RateLimiter(0.2, 20)
        self._fixes = {
            gateway: RateLimiter(device_fixes_per_s * times, BURST_FIXES * times)
            for gateway, times in ((False, 1.0), (True, GATEWAY_FACTOR))
        }

    def failure(self, key: str, detail: str) -> ProblemError | None:
        """Count a failed authentication; return the problem if the key has too many.

        Only failures are limited, and right credentials still work: a whole campus may share one address.
        """
        result = self.failures.take(key, time.monotonic())
        return None if result.allowed else too_many_requests(detail, result)

    def take_fixes(self, device: Device, number: int) -> None:
        """Count fixes that a device sends.

        Raises:
            ProblemError: `too-many-requests`; then none is counted.
        """
        result = self._fixes[device.gateway].take(device.id, time.monotonic(), number)
        if not result.allowed:
            raise too_many_requests("Too many fixes from this device.", result)


def too_many_requests(detail: str, result: RateLimitResult) -> ProblemError:
    """Return the problem of a rate limit that was reached."""
    wait_s = max(1, math.ceil(result.retry_s))
    headers = {"retry-after": str(wait_s)}
    return ProblemError(TOO_OFTEN, f"{detail} Try again in {wait_s} s.", headers=headers)
