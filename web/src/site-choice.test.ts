import { describe, expect, it } from "vitest";
import { chooseSite } from "./site-choice";

const sites = [
  { id: "north", name: "North campus" },
  { id: "ul", name: "University of Limerick" },
];

describe("chooseSite", () => {
  it("takes the site in the address, and the first one without it", () => {
    expect(chooseSite(sites, "ul")).toEqual({ id: "ul" });
    expect(chooseSite(sites, undefined)).toEqual({ id: "north" });
    expect(chooseSite([], "ul")).toBeUndefined();
  });

  it("shows the first one with a notice if a site is not there", () => {
    expect(chooseSite(sites, "moon")).toEqual({
      id: "north",
      notice: "There is no site “moon”, or it was removed. This is North campus.",
    });
  });
});
