/** The signed-in user, and signing in and out. */

import { type Body, pathTo } from "./api";
import { element } from "./element";

export type User = Body<"/v1/whoami">;

/** The address that starts a login and returns to the current page. */
export function loginUrl(base: string, here: string): string {
  const { pathname, search } = new URL(here);
  const url = new URL("/login", base);
  url.searchParams.set("next", pathname + search);
  return url.href;
}

/** The headers of a request that changes something. */
export function csrfHeaders({ csrf }: Pick<User, "csrf">): Record<string, string> {
  return csrf === null ? {} : { "headcount-csrf": csrf };
}

async function logOut(base: string, user: User): Promise<void> {
  await fetch(new URL("/logout", base), { method: "POST", headers: csrfHeaders(user) }).catch(() => undefined);
  location.reload();
}

/** Shows a link to log in, or a button to log out; nothing if the server has no login. */
export async function showLogin(place: HTMLElement, base: string): Promise<void> {
  const response = await fetch(new URL(`/${pathTo("/v1/whoami")}`, base), { cache: "no-store" }).catch(() => undefined);
  if (!response?.ok) return;
  const user: User | undefined = await response.json().catch(() => undefined);
  if (user?.name) {
    const button = element("button", { type: "button", title: `${user.name}, ${user.role}` }, "Log out");
    button.addEventListener("click", () => void logOut(base, user));
    place.replaceChildren(button);
  } else if (user?.login) {
    place.replaceChildren(element("a", { href: loginUrl(base, location.href) }, "Log in"));
  } else return;
  place.hidden = false;
}
