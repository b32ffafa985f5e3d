import { describe, expect, it } from "vitest";

import { changing, loginUrl, parseWho } from "./login";

describe("who looks at the page", () => {
  it("is read from what the server says, and from nonsense as nobody", () => {
    const told = { name: "alice", role: "operator", csrf: "c", login: true, scopes: [] };
    expect(parseWho(told)).toEqual({ name: "alice", role: "operator", csrf: "c", canLogIn: true });
    for (const nonsense of [undefined, null, 7, "x", {}, { name: 7, login: "yes" }]) {
      expect(parseWho(nonsense)).toEqual({ name: undefined, role: "public", csrf: undefined, canLogIn: false });
    }
  });

  it("comes back to the page where the login began", () => {
    const url = new URL(loginUrl("https://headcount.example/", "https://headcount.example/?zone=a%26b#x"));
    expect(url.pathname).toBe("/login");
    expect(url.searchParams.get("next")).toBe("/?zone=a%26b");
  });

  it("shows the session's own word where something changes", () => {
    expect(changing(parseWho({ csrf: "c" }))).toEqual({ "headcount-csrf": "c" });
    expect(changing(parseWho({}))).toEqual({});
  });
});
