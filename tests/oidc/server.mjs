// An identity provider: `node server.mjs PORT REDIRECT_URI`. Anybody logs in by name, and is in the groups below.
import Provider from "oidc-provider";

const [port, redirectUri] = process.argv.slice(2);
const people = {
  alice: ["headcount-operator", "staff"],
  bob: ["headcount-viewer-ul", "headcount-viewer-moon"],
  mallory: ["staff", "headcount-king", "xheadcount-admin", "headcount-public"],
};
const client = {
  client_id: "headcount",
  client_secret: "a secret of tests & more: 7%+7",
  redirect_uris: [redirectUri],
  grant_types: ["authorization_code"],
  response_types: ["code"],
};
const provider = new Provider(`http://127.0.0.1:${port}`, {
  clients: [client],
  claims: { openid: ["sub"], profile: ["preferred_username", "groups"], email: ["email"] },
  conformIdTokenClaims: false,
  cookies: { keys: ["a key of tests"] },
  features: { devInteractions: { enabled: false } },
  findAccount: (_, id) => ({
    accountId: id,
    claims: () => ({ sub: id, preferred_username: id, groups: people[id.split("-")[0]] }),
  }),
  interactions: { url: (_, interaction) => `/interaction/${interaction.uid}` },
  pkce: { required: () => true },
});
provider.use(async (ctx, next) => {
  if (!ctx.path.startsWith("/interaction/")) return next();
  const { params } = await provider.interactionDetails(ctx.req, ctx.res);
  const login = ctx.query.login;
  if (login === undefined) {
    ctx.body = '<form><input name="login"></form>';
    return;
  }
  if (login === "") {
    await provider.interactionFinished(ctx.req, ctx.res, { error: "access_denied" });
    return;
  }
  const grant = new provider.Grant({ accountId: login, clientId: params.client_id });
  grant.addOIDCScope(params.scope);
  const result = { login: { accountId: login }, consent: { grantId: await grant.save() } };
  await provider.interactionFinished(ctx.req, ctx.res, result);
});
provider.listen(Number(port), "127.0.0.1", () => console.log("ready"));
