// lite's Postgres connection with its differences from PostgREST mended.
import { inspect } from "node:util";
import { PostgresConnection } from "@supabase/lite/postgres";
import { sql } from "kysely";
import { questionMarks } from "./names.mjs";

// Postgres prints `2026-11-23 18:13:31.07+00`; PostgREST sends JSON's `2026-11-23T18:13:31.07+00:00`.
const toIso = (text) => text.replace(" ", "T").replace(/([+-]\d\d)$/, "$1:00");
const asIs = (value) => value;
const text = (oid, parse) => ({ to: oid, from: [oid], serialize: asIs, parse });
// lite has written a function's JSON arguments as text already; written once more they would arrive as JSON strings.
const json = (oid) => ({ to: oid, from: [oid], serialize: (value) => (typeof value === "string" ? value : JSON.stringify(value)), parse: JSON.parse });

const types = {
  timestamptz: text(1184, toIso),
  timestamp: text(1114, toIso),
  // A JSON number, however it is written: lite sends `1.50` as a string.
  numeric: { to: 1700, from: [1700], serialize: String, parse: (value) => (value === "NaN" ? value : Number(value)) },
  bytea: text(17, asIs),
  json: json(114),
  jsonb: json(3802),
};

// PostgREST's table from SQLSTATE, or its class, to HTTP; anything else is 400. https://docs.postgrest.org/en/stable/references/errors.html
const STATUS = {
  "08": 503, "09": 500, "0L": 403, "0P": 403, 23503: 409, 23505: 409, 25006: 405, 25: 500, 28: 403, "2D": 500, 38: 500, 39: 500,
  "3B": 500, 40: 500, 53400: 500, 53: 503, 54: 500, 55: 500, 57: 500, 58: 500, F0: 500, HV: 500, P0001: 400, P0: 500, XX: 500,
  42883: 404, "42P01": 404, "42P17": 500,
};

function statusOf(code, role) {
  const own = /^PT(\d{3})$/.exec(code);
  if (own) return Number(own[1]);
  if (code === "42501") return role === "anon" ? 401 : 403;
  return STATUS[code] ?? STATUS[code.slice(0, 2)] ?? 400;
}

const CONNECTION_LOST = new Set(["CONNECTION_CLOSED", "CONNECTION_ENDED", "CONNECTION_DESTROYED", "CONNECT_TIMEOUT", "ECONNREFUSED", "ECONNRESET"]);

/** lite answers exactly what an error of SQLSTATE `PGRST` says; so every database error is put in that shape. */
class RestError extends Error {
  constructor(status, body) {
    super(JSON.stringify(body));
    this.code = "PGRST";
    this.detail = JSON.stringify({ status, headers: {} });
  }
  [inspect.custom]() {
    return `rest ${this.message}`;
  }
}

function asRestError(error, role) {
  if (CONNECTION_LOST.has(error?.code))
    return new RestError(503, { code: "PGRST001", message: "Database connection error. Retrying the connection.", details: null, hint: null });
  if (error?.name !== "PostgresError" || error.code === "PGRST") return error;
  const { code, message, detail, hint } = error;
  return new RestError(statusOf(code, role), { code, message, details: detail ?? null, hint: hint ?? null });
}

/** The settings of each request are told in the same words. Prepared, they take one round trip, and else two. */
function prepareSettings(driver) {
  const reserve = driver.reserve;
  driver.reserve = async () => {
    const connection = await reserve();
    const { unsafe } = connection;
    connection.unsafe = (words, values, options) => unsafe(words, values, { prepare: words.startsWith("select set_config("), ...options });
    return connection;
  };
}

export class Database extends PostgresConnection {
  constructor(url) {
    super({ url, postgresOptions: { max: 30, types, onnotice: () => {}, connection: { application_name: "gateway" } } });
    prepareSettings(this.driver);
    this.kysely = this.kysely.withPlugin(questionMarks);
    // Else lite grants ALL on every schema with row security at the first request and undoes the migrations' revokes.
    this.rlsState = "active";
  }

  /** Postgres asks for a value of a domain by the domain's own number, which postgres.js does not know: it is written as the type beneath. */
  async introspect(options) {
    const schema = await super.introspect(options);
    if (schema !== this.schema) {
      const { serializers } = this.driver.options;
      for (const { oid, beneath } of await this.driver`select oid::int, typbasetype::int as beneath from pg_type where typtype = 'd'`)
        serializers[oid] = serializers[beneath];
      this.schema = schema;
    }
    return schema;
  }

  async withContext(context, work, options) {
    try {
      return await super.withContext(context, work, options);
    } catch (error) {
      throw context && !context.storage ? asRestError(error, context.auth?.role ?? "anon") : error;
    }
  }

  // One round trip where lite makes six.
  async applyJwtSessionContext(transaction, context) {
    const { role = "anon", uid, jwt } = context.auth ?? {};
    const claims = JSON.stringify(jwt ?? { role });
    await sql`select set_config('request.jwt.claim.sub', ${String(uid ?? "")}, true),
      set_config('request.jwt.claim.role', ${role}, true), set_config('request.jwt.claims', ${claims}, true),
      set_config('storage.operation', ${String(context.storage?.operation ?? "")}, true),
      set_config('role', ${role}, true)`.execute(transaction);
  }

  async applyRpcRequestGucs(transaction, request) {
    await sql`select set_config('response.status', '', true), set_config('response.headers', '', true),
      set_config('request.method', ${request.method}, true), set_config('request.path', ${request.path}, true),
      set_config('request.headers', ${JSON.stringify(request.requestHeaders ?? {})}, true)`.execute(transaction);
  }

  /** Reads the schema anew whenever Postgres says `notify pgrst`, as PostgREST does; also after a lost connection. */
  async followSchema() {
    const forget = () => this.clearSchemaCache();
    await this.driver.listen("pgrst", forget, forget);
  }
}
