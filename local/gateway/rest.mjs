// /rest/v1: where lite and PostgREST differ before a statement is made.
import { BadBody, readBody, restContext } from "./bodies.mjs";
import { exactFilters } from "./filters.mjs";
import { exactAnswer } from "./numbers.mjs";
import { bearer, read, sign } from "./tokens.mjs";

const SKEW_SECONDS = 30; // that PostgREST allows between its clock and the one that a token was made by

function refuse(status, code, message, headers = {}) {
  return Response.json({ code, message, details: null, hint: null }, { status, headers });
}

const refuseToken = (code, message) =>
  refuse(401, code, message, { "www-authenticate": `Bearer error="invalid_token", error_description="${message}"` });

export function rest(database) {
  return async (request, lite) => {
    const token = bearer(request.headers);
    const parts = token?.split(".").length;
    // lite takes a token that is no JWT for no token at all.
    if (token && parts !== 3) return refuseToken("PGRST301", `Expected 3 parts in JWT; got ${parts}`);
    const claims = token ? read(token) : null;
    const refused = claims && refusalOf(claims);
    if (refused) return refuseToken("PGRST303", refused);
    const path = new URL(request.url).pathname.slice("/rest/v1/".length);
    const context = { claims, table: path.startsWith("rpc/") ? null : path };
    const headers = new Headers(request.headers);
    // lite allows no skew: it is shown a token that has time, and Postgres the real claims.
    if (claims)
      headers.set(
        "authorization",
        `Bearer ${sign({ ...claims, exp: Math.floor(Date.now() / 1000) + 600, nbf: undefined, iat: undefined })}`,
      );
    try {
      const asked = await forLite(request, headers, path, context, database);
      const answer = await restContext.run(context, async () => exactAnswer(await lite(asked)));
      if (answer.headers.has("content-location")) answer.headers.set("content-location", locationOf(request));
      return answer;
    } catch (error) {
      if (error instanceof BadBody) return refuse(400, "PGRST102", error.message);
      throw error;
    }
  };
}

/** As it was asked for, and not as lite was. */
function locationOf(request) {
  const url = new URL(request.url);
  url.searchParams.sort();
  return url.pathname.slice("/rest/v1".length) + url.search;
}

/** https://docs.postgrest.org/en/stable/references/auth.html#jwt-claims-validation */
function refusalOf(claims) {
  const now = Date.now() / 1000;
  for (const name of ["exp", "nbf", "iat"]) {
    const value = claims[name] ?? null;
    if (value !== null && typeof value !== "number") return `The JWT '${name}' claim must be a number`;
  }
  if (claims.exp < now - SKEW_SECONDS) return "JWT expired";
  if (claims.nbf > now + SKEW_SECONDS) return "JWT not yet valid";
  if (claims.iat > now + SKEW_SECONDS) return "JWT issued at future";
  return null;
}

async function forLite(request, headers, path, context, database) {
  const { method } = request;
  const url = exactFilters(request.url, path.startsWith("rpc/") && ["GET", "HEAD"].includes(method));
  if (!["POST", "PATCH", "PUT"].includes(method)) return new Request(url, { method, headers });
  let text = await request.text();
  if (/^(application\/(vnd\.pgrst\.\w+\+)?json|$)/.test(headers.get("content-type") ?? "")) {
    const read = readBody(text, request, path, await database.introspect({ useCache: true }));
    context.body = read?.body;
    text = read?.skeleton ?? text;
  }
  headers.delete("content-length");
  return new Request(url, { method, headers, body: text });
}

/**
 * lite looks a token's user and session up before each REST call and then throws the answer away (PostgREST, and so
 * hosted, knows neither). It skips that when both are set; the token itself is checked afterwards all the same.
 */
export async function skipSessionLookup(context, next) {
  if (context.req.path.startsWith("/rest/v1/") && bearer(context.req.raw.headers)?.split(".").every(Boolean)) {
    context.set("userId", "unchecked");
    context.set("sessionId", "unchecked");
  }
  await next();
}
