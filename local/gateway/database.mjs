// lite's Postgres connection with its differences from PostgREST mended.
import { inspect } from "node:util";
import { PostgresConnection } from "@supabase/lite/postgres";
import { sql } from "kysely";
import { parse as parseArray } from "postgres-array";
import { fromBody, restContext } from "./bodies.mjs";
import { questionMarks } from "./names.mjs";
import { numberOf, parseJson, withNumbers } from "./numbers.mjs";

// Postgres prints `2026-11-23 18:13:31.07+00`; PostgREST sends JSON's `2026-11-23T18:13:31.07+00:00`.
const toIso = (text) => text.replace(" ", "T").replace(/([+-]\d\d)$/, "$1:00");
const asIs = (value) => value;
const text = (oid, parse) => ({ to: oid, from: [oid], serialize: asIs, parse });
// A string is JSON's text already: a body, or a value of a filter.
const jsonText = (value) => withNumbers(typeof value === "string" ? value : JSON.stringify(value));
const json = (oid) => ({ to: oid, from: [oid], serialize: jsonText, parse: parseJson });
const number = (...oids) => ({ to: oids[0], from: oids, serialize: String, parse: numberOf });

const types = {
  timestamptz: text(1184, toIso),
  timestamp: text(1114, toIso),
  bigint: number(20),
  numeric: number(1700),
  float: number(701, 700),
  bool: { to: 16, from: [16], serialize: String, parse: (value) => value === "t" }, // the driver takes text for false
  bytea: text(17, asIs),
  json: json(114),
  jsonb: json(3802),
};

// PostgREST's table from SQLSTATE, or its class, to HTTP; anything else is 400. https://docs.postgrest.org/en/stable/references/errors.html
const STATUS = {
  "08": 503, "09": 500, "0L": 403, "0P": 403, 23503: 409, 23505: 409, 25006: 405, 25: 500, 28: 403, "2D": 500, 38: 500, 39: 500,
  "3B": 500, 40: 500, 53400: 500, 53: 503, 54: 500, 55: 500, 57: 500, 58: 500, F0: 500, HV: 500, P0001: 400, P0: 500, XX: 500,
  21000: 500, 42883: 404, "42P01": 404, "42P17": 500, "57P01": 503,
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
    this.detail = JSON.stringify({ status, headers: status === 401 ? { "WWW-Authenticate": "Bearer" } : {} });
  }
  [inspect.custom]() {
    return `rest ${this.message}`;
  }
}

function asRestError(error, role, table) {
  if (CONNECTION_LOST.has(error?.code))
    return new RestError(503, { code: "PGRST001", message: "Database connection error. Retrying the connection.", details: null, hint: null });
  if (error?.name !== "PostgresError" || error.code === "PGRST") return error;
  const { code, detail, hint } = error;
  // PostgREST writes each column with its table, and Postgres repeats what is written.
  const named = table ? `column ${table}.$1 does not exist` : "$&";
  const message = error.message.replace(/^column "([^"]+)" does not exist$/, named);
  return new RestError(statusOf(code, role), { code, message, details: detail ?? null, hint: hint ?? null });
}

/**
 * The settings of each request are told in the same words. Prepared, they take one round trip, and else two. A marked
 * number that lite read from a row and asks for again goes as it was.
 */
function prepareSettings(driver) {
  const reserve = driver.reserve;
  driver.reserve = async () => {
    const connection = await reserve();
    const { unsafe } = connection;
    const exact = (value) => (typeof value === "string" ? withNumbers(value) : value);
    connection.unsafe = (words, values, options) =>
      unsafe(words, values?.map(exact), { prepare: words.startsWith("select set_config("), ...options });
    return connection;
  };
}

export class Database extends PostgresConnection {
  constructor(url) {
    super({ url, postgresOptions: { max: 30, types, onnotice: () => {}, connection: { application_name: "gateway" } } });
    prepareSettings(this.driver);
    this.kysely = this.kysely.withPlugin(questionMarks).withPlugin(fromBody);
    // Else lite grants ALL on every schema with row security at the first request and undoes the migrations' revokes.
    this.rlsState = "active";
    this.timeouts = new Map(); // role → {statement_timeout?, lock_timeout?}
  }

  /** Postgres asks for a value of a domain by the domain's own number, which postgres.js does not know: it is written as the type beneath. */
  async introspect(options) {
    const schema = await super.introspect(options);
    if (schema !== this.schema) {
      const { serializers, parsers } = this.driver.options;
      for (const { oid, beneath } of await this.driver`select oid::int, typbasetype::int as beneath from pg_type where typtype = 'd'`)
        serializers[oid] = serializers[beneath];
      // The driver's own reader takes NULL in an array for the text NULL.
      for (const { oid, element } of await this.driver`
        select oid::int, typelem::int as element from pg_type where typcategory = 'A' and typelem <> 0`)
        parsers[oid] = (text) => parseArray(text, parsers[element] ?? asIs);
      schema.columnTypes = await this.#columnTypes();
      this.timeouts = await this.#timeouts();
      this.schema = schema;
    }
    return schema;
  }

  /** `schema.table` → name → {type, default_value}, as Postgres reads them. */
  async #columnTypes() {
    const found = new Map();
    for (const { table, name, type, default_value } of await this.driver`
      select n.nspname || '.' || c.relname as table, a.attname as name, format_type(a.atttypid, -1) as type,
        case when a.attidentity <> ''
               then format('nextval(%L)', pg_get_serial_sequence(format('%I.%I', n.nspname, c.relname), a.attname))
             when a.attgenerated = '' then pg_get_expr(d.adbin, d.adrelid) end as default_value
      from pg_attribute a join pg_class c on c.oid = a.attrelid join pg_namespace n on n.oid = c.relnamespace
      left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
      where n.nspname = 'public' and c.relkind in ('r', 'p', 'v', 'f') and a.attnum > 0 and not a.attisdropped`) {
      if (!found.has(table)) found.set(table, new Map());
      found.get(table).set(name, { type, default_value });
    }
    return found;
  }

  /** Of each role, its own; else authenticator's, as which PostgREST connects. */
  async #timeouts() {
    const rows = await this.driver`
      select r.rolname as role, split_part(setting, '=', 1) as name, split_part(setting, '=', 2) as value
      from pg_roles r cross join lateral unnest(r.rolconfig) setting where setting ~ '^(statement|lock)_timeout='`;
    const own = (role) => rows.filter((row) => row.role === role).map(({ name, value }) => [name, value]);
    const timeouts = (role) => Object.fromEntries([...own("authenticator"), ...own(role)]);
    return new Map(["anon", "authenticated", "service_role"].map((role) => [role, timeouts(role)]));
  }

  async withContext(context, work, options) {
    try {
      return await super.withContext(context, work, options);
    } catch (error) {
      if (!context || context.storage) throw error;
      throw asRestError(error, context.auth?.role ?? "anon", restContext.getStore()?.table);
    }
  }

  // One round trip where lite makes six.
  async applyJwtSessionContext(transaction, context) {
    const { role = "anon", uid } = context.auth ?? {};
    const request = restContext.getStore();
    const jwt = request?.claims ?? context.auth?.jwt;
    const timeouts = (request && this.timeouts.get(role)) || {};
    const claims = JSON.stringify(jwt ?? { role });
    await sql`select set_config('request.jwt.claim.sub', ${String(uid ?? "")}, true),
      set_config('request.jwt.claim.role', ${role}, true), set_config('request.jwt.claims', ${claims}, true),
      set_config('storage.operation', ${String(context.storage?.operation ?? "")}, true),
      set_config('statement_timeout', ${timeouts.statement_timeout ?? "0"}, true),
      set_config('lock_timeout', ${timeouts.lock_timeout ?? "0"}, true),
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
