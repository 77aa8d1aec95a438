// /auth/v1/admin/users, which lite has not: the shapes of supabase/auth, so that both official clients work unmodified.
import { createHash, randomBytes, randomUUID } from "node:crypto";
import bcrypt from "bcryptjs";
import { authError } from "./auth.mjs";
import { exactAnswer } from "./numbers.mjs";
import { bearer } from "./tokens.mjs";
import { settings } from "./settings.mjs";

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;
const UNITS = { ns: 1e-9, us: 1e-6, "µs": 1e-6, ms: 1e-3, s: 1, m: 60, h: 3600 };

class Refusal extends Error {
  constructor(status, code, message) {
    super(message);
    this.answer = authError(status, code, message);
  }
}
const invalid = (message) => new Refusal(400, "validation_failed", message);

export function adminUsers(database) {
  const sql = database.driver;
  return async (request) => {
    try {
      return await exactAnswer(await route(sql, request));
    } catch (error) {
      if (error instanceof Refusal) return error.answer;
      if (error?.code === "23505")
        return error.constraint_name === "users_pkey"
          ? authError(422, "user_already_exists", "A user with this id has already been registered")
          : authError(422, "email_exists", "A user with this email address has already been registered");
      console.error("admin users:", error);
      return authError(500, "unexpected_failure", "Database error");
    }
  };
}

async function route(sql, request) {
  const url = new URL(request.url);
  const key = request.headers.get("apikey") ?? url.searchParams.get("apikey");
  if (key !== settings.secretKey || bearer(request.headers)) throw new Refusal(403, "not_admin", "User not allowed");
  const [id, ...rest] = url.pathname.slice("/auth/v1/admin/users".length).split("/").slice(1);
  if (rest.length) return authError(404, "not_found", "Not found");
  if (!id && request.method === "GET") return list(sql, url);
  if (!id && request.method === "POST") return Response.json(await create(sql, await bodyOf(request)));
  if (!id || !["GET", "PUT", "DELETE"].includes(request.method)) return new Response(null, { status: 405, headers: { allow: id ? "GET, PUT, DELETE" : "GET, POST" } });
  if (!UUID.test(id)) throw new Refusal(404, "validation_failed", "user_id must be an UUID");
  if (request.method === "PUT") await update(sql, id, await bodyOf(request));
  else if (request.method === "DELETE") {
    await remove(sql, id, await bodyOf(request, {}));
    return Response.json({});
  }
  return Response.json(await find(sql, id));
}

async function bodyOf(request, whenEmpty) {
  const text = await request.text();
  if (!text && whenEmpty) return whenEmpty;
  try {
    const body = JSON.parse(text);
    if (body && typeof body === "object" && !Array.isArray(body)) return body;
  } catch {}
  throw new Refusal(400, "bad_json", "Could not parse request body as JSON");
}

async function find(sql, id) {
  const [user] = await users(sql, sql`where u.id = ${id}`);
  if (!user) throw new Refusal(404, "user_not_found", "User not found");
  return user;
}

async function list(sql, url) {
  const number = (name, fallback) => {
    const text = url.searchParams.get(name);
    if (!text) return fallback;
    if (!/^\d+$/.test(text)) throw invalid(`Bad Pagination Parameters: ${name} must be a number`);
    return Number(text) || fallback;
  };
  const page = number("page", 1);
  const size = number("per_page", 50);
  const [{ count }] = await sql`select count(*)::int as count from auth.users`;
  const found = await users(sql, sql`order by u.created_at desc, u.id limit ${size} offset ${(page - 1) * size}`);
  const last = Math.ceil(count / size);
  const link = (to, rel) => `</admin/users?page=${to}&per_page=${size}>; rel="${rel}"`;
  const links = [...(page < last ? [link(page + 1, "next")] : []), link(last, "last")].join(", ");
  return Response.json({ users: found, aud: "authenticated" }, { headers: { link: links, "x-total-count": String(count) } });
}

async function users(sql, rest) {
  const rows = await sql`select u.*, (select coalesce(jsonb_agg(to_jsonb(i) order by i.created_at), '[]') from auth.identities i where i.user_id = u.id)
    as identities from auth.users u ${rest}`;
  return rows.map(shaped);
}

function shaped(row) {
  const user = {
    id: row.id, aud: row.aud, role: row.role, email: row.email ?? "", email_confirmed_at: row.email_confirmed_at, invited_at: row.invited_at,
    phone: row.phone ?? "", phone_confirmed_at: row.phone_confirmed_at, confirmation_sent_at: row.confirmation_sent_at,
    confirmed_at: row.confirmed_at, recovery_sent_at: row.recovery_sent_at, new_email: row.email_change || null,
    email_change_sent_at: row.email_change_sent_at, last_sign_in_at: row.last_sign_in_at, app_metadata: row.raw_app_meta_data ?? {},
    user_metadata: row.raw_user_meta_data ?? {}, created_at: row.created_at, updated_at: row.updated_at, banned_until: row.banned_until,
    deleted_at: row.deleted_at, is_anonymous: row.is_anonymous,
    identities: row.identities.map(({ id, provider_id, ...identity }) => ({ identity_id: id, id: provider_id, ...identity })),
  };
  return Object.fromEntries(Object.entries(user).filter(([, value]) => value !== null && value !== undefined));
}

function emailOf(body) {
  if (!body.email) return null;
  if (!/^[^\s@]+@[^\s@]+\.[^\s@]+$/.test(body.email)) throw invalid("Unable to validate email address: invalid format");
  return String(body.email).toLowerCase();
}

function phoneOf(body) {
  if (!body.phone) return null;
  const phone = String(body.phone).replace(/[\s()+-]/g, "");
  if (!/^[1-9]\d{1,14}$/.test(phone)) throw invalid("Invalid phone number format (E.164 required)");
  return phone;
}

async function hashOf(password, least = 0) {
  if (password.length < least)
    throw Object.assign(new Refusal(422, "weak_password", ""), {
      answer: Response.json(
        { code: 422, error_code: "weak_password", msg: `Password should be at least ${least} characters.`, weak_password: { reasons: ["length"] } },
        { status: 422 },
      ),
    });
  if (Buffer.byteLength(password) > 72) throw invalid("Password cannot be longer than 72 characters");
  return bcrypt.hash(password, 8); // cheaper than hosted's 10: sign-ins of a test stack are many
}

/** undefined: leave as it is; null: lift the ban; otherwise its end. Durations are written as in Go: `1h30m`. */
function banOf(body) {
  const text = body.ban_duration;
  if (text === undefined || text === "") return undefined;
  if (text === "none") return null;
  const parts = /^([\d.]+(ns|us|µs|ms|s|m|h))+$/.test(text) ? text.matchAll(/([\d.]+)(ns|us|µs|ms|s|m|h)/g) : null;
  if (!parts) throw invalid(`invalid format for ban duration: time: invalid duration "${text}"`);
  const seconds = [...parts].reduce((sum, [, amount, unit]) => sum + Number(amount) * UNITS[unit], 0);
  return new Date(Date.now() + seconds * 1000).toISOString();
}

async function create(sql, body) {
  const email = emailOf(body);
  const phone = phoneOf(body);
  if (!email && !phone) throw invalid("Cannot create a user without either an email or phone");
  if (body.id !== undefined && !UUID.test(body.id)) throw invalid("ID must conform to the uuid v4 format");
  const id = body.id ?? randomUUID();
  const providers = [...(email ? ["email"] : []), ...(phone ? ["phone"] : [])];
  const confirmed = new Date().toISOString();
  const row = {
    id, email, phone, role: body.role || "authenticated", aud: "authenticated",
    encrypted_password: body.password_hash || (await hashOf(body.password || randomBytes(30).toString("base64"))),
    email_confirmed_at: email && body.email_confirm ? confirmed : null,
    phone_confirmed_at: phone && body.phone_confirm ? confirmed : null,
    raw_app_meta_data: sql.json({ provider: providers[0], providers, ...body.app_metadata }),
    raw_user_meta_data: sql.json({ ...body.user_metadata, ...(email && body.email_confirm ? { email_verified: true } : {}) }),
    banned_until: banOf(body) ?? null,
  };
  await sql.begin(async (sql) => {
    await sql`insert into auth.users ${sql(row)}`;
    for (const provider of providers) await addIdentity(sql, id, provider, provider === "email" ? { email } : { phone });
  });
  return find(sql, id);
}

const addIdentity = (sql, id, provider, what) =>
  sql`insert into auth.identities ${sql({ id: randomUUID(), user_id: id, provider, provider_id: id, last_sign_in_at: new Date().toISOString(),
    identity_data: sql.json({ sub: id, email_verified: false, phone_verified: false, ...what }) })}`;

const merged = (old, change) => Object.fromEntries(Object.entries({ ...old, ...change }).filter(([, value]) => value !== null));

async function update(sql, id, body) {
  const email = emailOf(body);
  const phone = phoneOf(body);
  const ban = banOf(body);
  const password = typeof body.password === "string" ? await hashOf(body.password, 6) : null;
  await sql.begin(async (sql) => {
    const [old] = await sql`select * from auth.users where id = ${id} for update`;
    if (!old) throw new Refusal(404, "user_not_found", "User not found");
    const now = new Date().toISOString();
    const change = { updated_at: now };
    if (email) change.email = email;
    if (phone) change.phone = phone;
    if (body.role) change.role = body.role;
    if (body.email_confirm) change.email_confirmed_at = now;
    if (body.phone_confirm) change.phone_confirmed_at = now;
    if (ban !== undefined) change.banned_until = ban;
    if (password) change.encrypted_password = password;
    if (body.app_metadata) change.raw_app_meta_data = sql.json(merged(old.raw_app_meta_data, body.app_metadata));
    const said = { ...body.user_metadata, ...(body.email_confirm ? { email_verified: true } : {}) };
    if (Object.keys(said).length) change.raw_user_meta_data = sql.json(merged(old.raw_user_meta_data, said));
    await sql`update auth.users set ${sql(change)} where id = ${id}`;
    for (const [provider, what] of [["email", email && { email }], ["phone", phone && { phone }]]) {
      if (!what) continue;
      const done = await sql`update auth.identities set identity_data = identity_data || ${sql.json(what)}, updated_at = now()
        where user_id = ${id} and provider = ${provider}`;
      if (!done.count) await addIdentity(sql, id, provider, what);
    }
    if (password) await endSessions(sql, id);
  });
}

async function endSessions(sql, id) {
  await sql`delete from auth.refresh_tokens where user_id = ${id}`;
  await sql`delete from auth.sessions where user_id = ${id}`;
}

async function remove(sql, id, { should_soft_delete: soft }) {
  await sql.begin(async (sql) => {
    const [user] = await sql`select * from auth.users where id = ${id} for update`;
    if (!user) throw new Refusal(404, "user_not_found", "User not found");
    await endSessions(sql, id);
    if (!soft) return sql`delete from auth.users where id = ${id}`;
    if (user.deleted_at) return;
    // Soft: the id stays for what refers to it, everything that names or admits the person goes.
    const hidden = (text) => (text ? createHash("sha256").update(id + text).digest("base64url") : text);
    await sql`update auth.users set email = ${hidden(user.email)}, phone = ${hidden(user.phone)}, encrypted_password = '', raw_user_meta_data = '{}',
      raw_app_meta_data = '{}', confirmation_token = null, recovery_token = null, email_change = null, deleted_at = now(), updated_at = now() where id = ${id}`;
    await sql`update auth.identities set provider_id = ${hidden(id)}, identity_data = '{}' where user_id = ${id}`;
  });
}
