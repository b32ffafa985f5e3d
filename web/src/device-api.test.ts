import { describe, expect, it } from "vitest";
import { basic, brokerUrl, isUsed, joinCode, outcome } from "./device-api";

describe("the device's API", () => {
  it("shows a message's verdict, or its type for a message without one", () => {
    expect(outcome({ what: "fix", verdict: "out_of_order" })).toBe("out of order");
    expect(outcome({ what: "offline", verdict: null })).toBe("offline");
  });

  it("distinguishes positions that were used for counting", () => {
    expect(["accepted", "outside", "out_of_order", null].map((verdict) => isUsed({ verdict }))).toEqual([
      true,
      true,
      false,
      false,
    ]);
  });

  it("finds a one-time code in the fragment only if it is valid", () => {
    expect(joinCode("#join=abcd-efgh-2345-wxyz")).toBe("abcd-efgh-2345-wxyz");
    expect(joinCode("#join=abcdefgh2345wxyz&x=1")).toBe("abcdefgh2345wxyz");
    for (const hash of ["", "#", "#join=", "#join=<script>", "#other=abcdefgh", `#join=${"a".repeat(65)}`]) {
      expect(joinCode(hash)).toBeUndefined();
    }
  });

  it("formats the broker's address", () => {
    expect(brokerUrl({ host: "h", port: 8883, tls: true })).toBe("mqtts://h:8883");
    expect(brokerUrl({ host: "h", port: 1883, tls: false })).toBe("mqtt://h:1883");
  });

  it("encodes credentials as UTF-8", () => {
    expect(basic({ id: "d", secret: "s" })).toBe("Basic ZDpz");
    expect(basic({ id: "d", secret: "ö" })).toBe("Basic ZDrDtg==");
  });
});
