"""The rate limits of the API."""

from __future__ import annotations

import math

from headcount.access.rate_limiter import RateLimiter, RateLimitResult
from headcount.api.schemas.problems import TOO_OFTEN, ProblemError

#: A page loads some dozens of resources at the same time.
BURST_S = 5.0


class ApiRateLimits:
    """The rate limits of one API."""

    def __init__(self, requests_per_s: float) -> None:
        """Allow each token and address this many requests per second, with bursts of five seconds' worth."""
        self.requests = RateLimiter(requests_per_s, max(1, round(BURST_S * requests_per_s)))
        #: Failed authentications of an address. Guessing a secret is hopeless; this limits noise and load.
        self.failures = RateLimiter(0.2, 20)
        #: Logins started at an address: each queries the identity provider.
        self.logins = RateLimiter(0.5, 20)


def too_many_requests(detail: str, result: RateLimitResult) -> ProblemError:
    """Return the problem of a rate limit that was reached."""
    wait_s = max(1, math.ceil(result.retry_s))
    headers = {"retry-after": str(wait_s)}
    return ProblemError(TOO_OFTEN, f"{detail} Try again in {wait_s} s.", headers=headers)
