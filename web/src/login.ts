/** Who looks at the page, and how they log in and out. */

import { element } from "./element";

/** As `GET /v1/whoami` tells it. */
export interface Who {
  name: string | undefined; // of somebody who has logged in
  role: string;
  csrf: string | undefined;
  canLogIn: boolean;
}

const text = (value: unknown): string | undefined => (typeof value === "string" ? value : undefined);

export function parseWho(body: unknown): Who {
  const told = (typeof body === "object" && body !== null ? body : {}) as Record<string, unknown>;
  return {
    name: text(told.name),
    role: text(told.role) ?? "public",
    csrf: text(told.csrf),
    canLogIn: told.login === true,
  };
}

/** Where a login begins, so that it ends on the page where it began. */
export function loginUrl(base: string, here: string): string {
  const { pathname, search } = new URL(here);
  const url = new URL("/login", base);
  url.searchParams.set("next", pathname + search);
  return url.href;
}

/** The headers of a request that changes something. */
export function changing(who: Who): Record<string, string> {
  return who.csrf === undefined ? {} : { "headcount-csrf": who.csrf };
}

async function logOut(base: string, who: Who): Promise<void> {
  await fetch(new URL("/logout", base), { method: "POST", headers: changing(who) }).catch(() => undefined);
  location.reload();
}

/** Offer a login, or say who has logged in and offer to log out; nothing where nobody can. */
export async function showLogin(place: HTMLElement, base: string): Promise<void> {
  const answer = await fetch(new URL("/v1/whoami", base), { cache: "no-store" }).catch(() => undefined);
  if (answer === undefined || !answer.ok) return;
  const who = parseWho(await answer.json().catch(() => undefined));
  if (who.name !== undefined) {
    const button = element("button", { type: "button", title: `${who.name}, ${who.role}` }, "Log out");
    button.addEventListener("click", () => void logOut(base, who));
    place.replaceChildren(button);
  } else if (who.canLogIn) {
    place.replaceChildren(element("a", { href: loginUrl(base, location.href) }, "Log in"));
  } else return;
  place.hidden = false;
}
