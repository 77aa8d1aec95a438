// /rest/v1: where lite and PostgREST differ before a statement is made.
import { bearer, read } from "./tokens.mjs";

function refuse(code, message) {
  return Response.json(
    { code, message, details: null, hint: null },
    { status: 401, headers: { "www-authenticate": `Bearer error="invalid_token", error_description="${message}"` } },
  );
}

export function rest(database) {
  return async (request, lite) => {
    const token = bearer(request.headers);
    if (token) {
      // lite takes a token that is no JWT for no token at all.
      const parts = token.split(".");
      if (parts.length !== 3) return refuse("PGRST301", `Expected 3 parts in JWT; got ${parts.length}`);
      if (read(token)?.nbf > Date.now() / 1000 + 30) return refuse("PGRST303", "JWT not yet valid");
    }
    return lite(await withJsonWords(request, database));
  };
}

/**
 * lite hands a text or a truth value for a JSON column or argument to Postgres as JSON's own text, having parsed a
 * column's once before: "a" fails, "{}" becomes an object. Written as JSON first, it arrives as what it is.
 */
async function withJsonWords(request, database) {
  const json = /^application\/(vnd\.pgrst\.\w+\+)?json/.test(request.headers.get("content-type") ?? "");
  if (!json || !["POST", "PATCH", "PUT"].includes(request.method)) return request;
  let body = await request.text();
  const path = new URL(request.url).pathname.slice("/rest/v1/".length);
  const names = await jsonNames(path, request, database);
  const written = path.startsWith("rpc/") ? JSON.stringify : (value) => JSON.stringify(JSON.stringify(value));
  const isWord = (value) => typeof value === "string" || typeof value === "boolean";
  try {
    const given = names.size ? JSON.parse(body) : null;
    for (const row of [given].flat()) for (const name of names) if (isWord(row?.[name])) row[name] = written(row[name]);
    if (names.size) body = JSON.stringify(given);
  } catch {} // lite words the refusal
  const headers = new Headers(request.headers);
  headers.delete("content-length");
  return new Request(request.url, { method: request.method, headers, body });
}

async function jsonNames(path, request, database) {
  const schema = request.headers.get("content-profile") ?? "public";
  const known = await database.introspect({ useCache: true });
  const isJson = (type) => type === "jsonb" || type === "json";
  const [, called] = /^rpc\/([^/]+)$/.exec(path) ?? [];
  const found = called
    ? known.functions.filter(({ name, schema: of }) => name === called && of === schema)
        .flatMap(({ arg_names, arg_types }) => arg_names.filter((_, index) => isJson(arg_types[index])))
    : known.columns.filter((column) => column.table === path && column.schema === schema && isJson(column.type)).map(({ name }) => name);
  return new Set(found);
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
