/** The signed-in user, and signing in and out. */

import { type Body, pathTo } from "./api";
import { element, setText } from "./element";

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

/** The code of an address `/#login=…`; undefined if there is none. */
export function loginCode(hash: string): string | undefined {
  const code = new URLSearchParams(hash.replace(/^#/, "")).get("login");
  return code !== null && /^[\w-]{43}$/.test(code) ? code : undefined;
}

/** Opens a session with a one-time link's code or a token; returns what went wrong. */
async function signIn(base: string, body: { code: string } | { token: string }): Promise<string | undefined> {
  const headers = { "content-type": "application/json" };
  const response = await fetch(new URL("/login", base), { method: "POST", headers, body: JSON.stringify(body) }).catch(
    () => undefined,
  );
  if (response?.ok) return undefined;
  if (response?.status === 403) {
    return "code" in body
      ? "This link was used or has expired. The operator can create another one with headcount login-link."
      : "This token does not exist, was revoked, or has expired.";
  }
  return response?.status === 429 ? "Too many attempts. Try again in a minute." : "The server does not answer.";
}

/** Uses up the code in the address, if there is one; returns what went wrong. */
export async function followLink(base: string): Promise<string | undefined> {
  const code = loginCode(location.hash);
  if (code === undefined) return undefined;
  // before anything else, so that the code stays out of the address bar, the history and bookmarks
  history.replaceState(null, "", location.pathname + location.search);
  return signIn(base, { code });
}

/** A dialog that asks for a token; with an identity provider, it also links to that. */
function loginDialog(base: string, withProvider: boolean, problem: string | undefined): HTMLDialogElement {
  const token = element("input", { type: "password", name: "token", required: "", maxlength: "200" });
  token.autocomplete = "off";
  const message = element("p", { class: "login-problem", role: "alert" }, problem ?? "");
  const close = element("button", { type: "button", class: "chip" }, "Cancel");
  const form = element(
    "form",
    {},
    element("h2", { id: "login-title" }, "Log in"),
    ...(withProvider
      ? [element("p", {}, element("a", { href: loginUrl(base, location.href) }, "Use my account"))]
      : []),
    element("p", { class: "hint" }, "With a token, which the operator creates with headcount token add:"),
    element("label", {}, "Token ", token),
    message,
    element("p", { class: "buttons" }, element("button", { class: "chip" }, "Log in"), close),
  );
  const dialog = element("dialog", { class: "login-dialog", "aria-labelledby": "login-title" }, form);
  close.addEventListener("click", () => dialog.close());
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    void signIn(base, { token: token.value.trim() }).then((failed) => {
      token.value = "";
      if (failed === undefined) location.reload();
      else setText(message, failed);
    });
  });
  return dialog;
}

async function logOut(base: string, user: User): Promise<void> {
  await fetch(new URL("/logout", base), { method: "POST", headers: csrfHeaders(user) }).catch(() => undefined);
  location.reload();
}

/** Shows a button to log in or out; nothing if everybody sees exact counts. `problem` is of the link just followed. */
export async function showLogin(place: HTMLElement, base: string, problem?: string): Promise<void> {
  const response = await fetch(new URL(`/${pathTo("/v1/whoami")}`, base), { cache: "no-store" }).catch(() => undefined);
  if (!response?.ok) return;
  const user: User | undefined = await response.json().catch(() => undefined);
  if (user?.name) {
    const button = element("button", { type: "button", title: `${user.name}, ${user.role}` }, "Log out");
    button.addEventListener("click", () => void logOut(base, user));
    place.replaceChildren(button);
  } else if (user && (user.login || problem !== undefined || !user.scopes.includes("counts:exact"))) {
    const button = element("button", { type: "button" }, "Log in");
    const dialog = loginDialog(base, user.login, problem);
    button.addEventListener("click", () => dialog.showModal());
    place.replaceChildren(button, dialog);
    if (problem !== undefined) dialog.showModal();
  } else return;
  place.hidden = false;
}
