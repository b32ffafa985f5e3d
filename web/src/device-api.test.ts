import { describe, expect, it } from "vitest";
import { basic, joinCode, parseGiven, parseLines, parseMe } from "./device-api";

describe("a device's own data", () => {
  it("reads what the server says, and survives what it doesn't", () => {
    const me = parseMe({
      device: "d",
      status: "paused",
      groups: ["staff", 1],
      zones: null,
      last: { t: "t" },
      looks: [{}],
    });
    expect(me).toMatchObject({ device: "d", status: "paused", groups: ["staff"], zones: [], connected: undefined });
    expect(me.last).toEqual({ t: "t", verdict: undefined });
    expect(me.looks).toEqual([{ at: "", actor: "", reason: "" }]);
    expect(parseMe(undefined).last).toBeUndefined();
  });

  it("knows which messages were used", () => {
    const lines = parseLines({
      lines: [
        { received: "r", what: "fix", verdict: "accepted", lat: 1, lon: 2, why: "w" },
        { what: "fix", verdict: "out_of_order", lat: null },
        { what: "offline", verdict: null },
      ],
    });
    expect(lines.map((line) => [line.what, line.used, line.lat])).toEqual([
      ["accepted", true, 1],
      ["out of order", false, undefined],
      ["offline", false, undefined],
    ]);
    expect(parseLines(null)).toEqual([]);
  });

  it("finds a one-time code in the fragment only where it is one", () => {
    expect(joinCode("#join=abcd-efgh-2345-wxyz")).toBe("abcd-efgh-2345-wxyz");
    expect(joinCode("#join=abcdefgh2345wxyz&x=1")).toBe("abcdefgh2345wxyz");
    for (const hash of ["", "#", "#join=", "#join=<script>", "#other=abcdefgh", `#join=${"a".repeat(65)}`]) {
      expect(joinCode(hash)).toBeUndefined();
    }
  });

  it("tells what a link gave, and refuses what isn't that", () => {
    const given = parseGiven({ device: "d", secret: "s", topic: "t", mqtt: { host: "h", port: 8883, tls: true } });
    expect(given).toEqual({ id: "d", secret: "s", topic: "t", broker: "mqtts://h:8883" });
    expect(() => parseGiven({ device: "d" })).toThrow("no credentials");
  });

  it("encodes credentials as UTF-8", () => {
    expect(basic({ id: "d", secret: "s" })).toBe("Basic ZDpz");
    expect(basic({ id: "d", secret: "ö" })).toBe("Basic ZDrDtg==");
  });
});
