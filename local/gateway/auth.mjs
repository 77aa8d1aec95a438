// /auth/v1: what hosted Auth does and lite leaves out: bans, and claims in the tokens.
import { exactAnswer } from "./numbers.mjs";
import { read, sign } from "./tokens.mjs";
import { settings } from "./settings.mjs";

export const authError = (status, code, message) =>
  Response.json({ code: status, error_code: code, msg: message }, { status, headers: { "x-sb-error-code": code } });

const SIGN_IN = new Set(["/auth/v1/token", "/auth/v1/signup", "/auth/v1/verify"]);

export function auth(database) {
  return async (request, next) => {
    const lite = async (asked) => exactAnswer(await next(asked));
    const url = new URL(request.url);
    if (request.method !== "POST" || !SIGN_IN.has(url.pathname)) return lite(request);
    const text = await request.text();
    const body = parsed(text);
    const grant = url.pathname === "/auth/v1/token" && url.searchParams.get("grant_type");
    if (grant && (await banned(database, grant, body)))
      return authError(400, "user_banned", grant === "refresh_token" ? "Invalid Refresh Token: User Banned" : "User is banned");
    const answer = await lite(new Request(request.url, { method: "POST", headers: request.headers, body: text }));
    return answer.ok ? withClaims(answer, grant) : answer;
  };
}

function parsed(text) {
  try {
    const value = JSON.parse(text);
    return value && typeof value === "object" ? value : {};
  } catch {
    return {}; // lite words the refusal
  }
}

async function banned({ driver: sql }, grant, body) {
  const rows =
    grant === "password"
      ? await sql`select 1 from auth.users where email = ${String(body.email ?? "").toLowerCase()} and banned_until > now()`
      : grant === "refresh_token"
        ? await sql`select 1 from auth.refresh_tokens t join auth.users u on u.id = t.user_id
                    where t.token = ${String(body.refresh_token ?? "")} and u.banned_until > now()`
        : [];
  return rows.length > 0;
}

/** lite's token names neither its issuer nor the user's metadata; policies and verifiers written for hosted read both. */
async function withClaims(answer, grant) {
  const session = await answer.json();
  const claims = session.access_token && read(session.access_token);
  if (claims && session.user) {
    const { phone, app_metadata, user_metadata, is_anonymous } = session.user;
    const method = grant === "password" || !grant ? "password" : "token_refresh";
    session.access_token = sign({
      ...claims,
      iss: `${settings.url}/auth/v1`,
      phone: phone ?? "",
      app_metadata,
      user_metadata,
      aal: "aal1",
      amr: [{ method, timestamp: claims.iat }],
      is_anonymous: is_anonymous ?? false,
    });
  }
  const headers = new Headers(answer.headers);
  headers.delete("content-length");
  return Response.json(session, { status: answer.status, headers });
}
