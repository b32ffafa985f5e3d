/** Delays between attempts: doubled from 1 s up to 60 s, each shortened at random by up to a half. */

const FIRST_S = 1;
const LAST_S = 60;

class Backoff {
  #next_s = FIRST_S;

  /** The delay before the next attempt, in milliseconds. */
  next() {
    const delay_s = this.#next_s * (1 - Math.random() / 2);
    this.#next_s = Math.min(LAST_S, this.#next_s * 2);
    return delay_s * 1000;
  }

  reset() {
    this.#next_s = FIRST_S;
  }
}

module.exports = { Backoff };
