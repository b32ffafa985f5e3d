import { describe, expect, it } from "vitest";
import { csrfHeaders, loginCode, loginUrl } from "./login";

describe("the login", () => {
  it("returns to the page where it started", () => {
    const url = new URL(loginUrl("https://headcount.example/", "https://headcount.example/?zone=a%26b#x"));
    expect(url.pathname).toBe("/login");
    expect(url.searchParams.get("next")).toBe("/?zone=a%26b");
  });

  it("takes the code of a one-time link from the fragment only", () => {
    const code = "a".repeat(43);
    expect(loginCode(`#login=${code}`)).toBe(code);
    for (const hash of ["", "#login=short", `#join=${code}`, `#login=${code}<`])
      expect(loginCode(hash)).toBeUndefined();
  });

  it("sends the session's CSRF token with changes", () => {
    expect(csrfHeaders({ csrf: "c" })).toEqual({ "headcount-csrf": "c" });
    expect(csrfHeaders({ csrf: null })).toEqual({});
  });
});
