const FIRST_RETRY_S = 1;
const MAX_RETRY_S = 60;
/** Attempts after which the pause does not grow any more, whatever their number. */
const MAX_DOUBLINGS = 10;

/**
 * Seconds to wait after a failure: exponential back-off with full jitter.
 *
 * @param attempt number of failures in a row before this one
 * @param share random number, 0 <= share < 1, a new one for each attempt
 * @param retryAfterS what the server asks for, in addition to which the device waits
 */
export function retryDelayS(attempt: number, share: number, retryAfterS = 0): number {
  const limitS = Math.min(MAX_RETRY_S, FIRST_RETRY_S * 2 ** Math.min(attempt, MAX_DOUBLINGS));
  return retryAfterS + share * limitS;
}
