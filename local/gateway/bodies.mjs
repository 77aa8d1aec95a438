// What REST is sent goes to Postgres as it came, and Postgres makes rows and arguments of it, as under PostgREST: a
// number keeps all its digits, 0 is no timestamp, and errors are the database's own. lite, which would convert each
// value by itself, is handed a body of the same keys to make its statement of; where the statement has a value, this
// plugin puts what Postgres reads from the real body.
import { AsyncLocalStorage } from "node:async_hooks";
import { OperationNodeTransformer, ColumnNode, sql } from "kysely";
import { parseJson, withNumbers } from "./numbers.mjs";

/** Of each REST request: {claims, table, body?}. A body: {text, isList, columns, defaults?} or {text, isList, args}. */
export const restContext = new AsyncLocalStorage();

export class BadBody extends Error {}

/** {body, skeleton} for a request's JSON, undefined where lite shall read it itself. Raises BadBody. */
export function readBody(text, request, path, known) {
  const url = new URL(request.url);
  const schema = request.headers.get("content-profile") ?? "public";
  const called = /^rpc\/([^/]+)$/.exec(path)?.[1];
  if (called && !text) return undefined;
  const isLookedUp = request.method === "PUT" || /resolution=/.test(request.headers.get("prefer") ?? "");
  const parse = isLookedUp ? parseJson : JSON.parse;
  if (called)
    return forCall(
      text,
      parsed(text, parse),
      known.functions.filter((f) => f.name === called && f.schema === schema),
    );
  const types = known.columnTypes.get(`${schema}.${path}`);
  if (!types) return undefined; // lite says that there is no such table
  const wanted = url.searchParams.has("columns") ? namesIn(url.searchParams.get("columns")) : null;
  if (!wanted) return forTable(text, parsed(text, parse), null, request, types);
  return forTable(text, rowsOrNone(text, parse), wanted, request, types);
}

function parsed(text, parse) {
  try {
    return parse(text);
  } catch {
    throw new BadBody("Empty or invalid json");
  }
}

const isObject = (value) => value !== null && typeof value === "object" && !Array.isArray(value);

/** With a list of columns PostgREST does not look into the body: what is wrong with it, Postgres says. */
function rowsOrNone(text, parse) {
  try {
    const given = parse(text);
    if ([given].flat().every(isObject)) return given;
  } catch {}
  return /^\s*\{/.test(text) ? {} : [{}];
}

function forTable(text, given, wanted, request, types) {
  const isUpdate = request.method === "PATCH";
  const isNothing = given === null || typeof given !== "object"; // to PostgREST
  if (!wanted && isNothing) return { skeleton: isUpdate ? "{}" : "[]" };
  const isList = Array.isArray(given);
  const rows = isList ? given : [given];
  if (!rows.every(isObject)) throw new BadBody("All object keys must match");
  const keys = wanted ?? Object.keys(rows[0] ?? {});
  if (!wanted && !rows.every((row) => sameNames(row, keys))) throw new BadBody("All object keys must match");
  if (isUpdate && !keys.length) return { skeleton: "{}" };
  if (!keys.every((key) => types.has(key))) return undefined; // lite names the column that is not there
  const columns = keys.map((name) => ({ name, ...types.get(name) }));
  const skeletons = rows.map((row) => Object.fromEntries(keys.map((key) => [key, simple(row[key])])));
  const defaults = /(^|,)\s*missing=default\s*(,|$)/.test(request.headers.get("prefer") ?? "");
  return {
    body: { text, isList, columns, defaults: defaults && wanted },
    skeleton: JSON.stringify(isList ? skeletons : skeletons[0]),
  };
}

const sameNames = (row, names) =>
  Object.keys(row).length === names.length && names.every((name) => Object.hasOwn(row, name));
/** Of a key, by which an upsert looks whether the row is there. */
const simple = (value) =>
  typeof value === "string"
    ? withNumbers(value)
    : typeof value === "number" || typeof value === "boolean"
      ? value
      : null;
const namesIn = (list) => list.split(",").map((name) => name.trim().replace(/^"(.*)"$/, "$1"));

function forCall(text, body, candidates) {
  const isList = Array.isArray(body); // of which the first counts
  if (isList && !body.every((row) => isObject(row) && sameNames(row, Object.keys(body[0]))))
    throw new BadBody("All object keys must match");
  const given = isList ? body[0] : body;
  if (!isObject(given)) return { skeleton: "{}" };
  const names = Object.keys(given);
  const fits = candidates.filter(
    (f) =>
      names.every((name) => f.arg_names.includes(name)) &&
      f.arg_names.slice(0, f.arg_types.length - f.arg_defaults).every((name) => names.includes(name)),
  );
  const isForLite = fits.length !== 1 || fits[0].has_variadic; // it refuses, or reads the body itself
  if (isForLite) return isList ? { skeleton: JSON.stringify(given) } : undefined;
  const [{ arg_names, arg_types }] = fits;
  const args = new Map(
    names.map((name, index) => [
      `~argument ${index} of ${text.length}~`,
      { name, type: arg_types[arg_names.indexOf(name)] },
    ]),
  );
  return {
    body: { text, isList, args },
    skeleton: JSON.stringify(Object.fromEntries([...args].map(([mark, { name }]) => [name, mark]))),
  };
}

const typed = (columns) => sql.join(columns.map(({ name, type }) => sql`${sql.id(name)} ${sql.raw(type)}`));
const names = (columns) => sql.join(columns.map(({ name }) => sql.id(name)));
const first = ({ text, isList }) => (isList ? sql`(${text}::json -> 0)` : sql`${text}::json`);
/** One value of an object, or of the first in a list. */
const one = (body, column) =>
  sql`(select ${sql.id(column.name)} from json_to_record(${first(body)}) as _(${typed([column])}))`;

/** The rows of an INSERT. */
function rowsOf({ text, isList, columns, defaults }) {
  const json = sql`${text}::json`;
  if (!columns.length)
    return isList ? sql`select from json_array_elements(${json})` : sql`select from (values (1)) as _`;
  const head = sql`select ${names(columns)} from`;
  if (!defaults)
    return sql`${head} ${sql.raw(isList ? "json_to_recordset" : "json_to_record")}(${json}) as _(${typed(columns)})`;
  const missing = columns.filter((column) => column.default_value !== null);
  const pairs = missing.flatMap((column) => [sql.lit(column.name), sql.raw(column.default_value)]);
  const made = sql`jsonb_build_object(${sql.join(pairs)})`;
  const filled = sql`(select jsonb_agg(${made} || e) from jsonb_array_elements(${text}::jsonb) e)`;
  return isList
    ? sql`${head} jsonb_to_recordset(${filled}) as _(${typed(columns)})`
    : sql`${head} jsonb_to_record(${made} || ${text}::jsonb) as _(${typed(columns)})`;
}

class FromBody extends OperationNodeTransformer {
  constructor(body) {
    super();
    this.body = body;
  }

  transformInsertQuery(node) {
    const { columns } = this.body;
    const moved = super.transformInsertQuery(node);
    if (!columns) return moved;
    const { defaultValues, ...kept } = moved;
    const into = columns.length ? columns.map(({ name }) => ColumnNode.create(name)) : undefined;
    return { ...kept, columns: into, values: rowsOf(this.body).toOperationNode() };
  }

  transformUpdateQuery(node) {
    const { columns } = this.body;
    const moved = super.transformUpdateQuery(node);
    if (!columns) return moved;
    const valueOf = ({ column }) =>
      one(
        this.body,
        columns.find(({ name }) => name === column.column.name),
      ).toOperationNode();
    return { ...moved, updates: moved.updates.map((update) => ({ ...update, value: valueOf(update) })) };
  }

  transformValue(node) {
    const argument = this.body.args?.get(node.value);
    return argument ? one(this.body, argument).toOperationNode() : super.transformValue(node);
  }
}

export const fromBody = {
  transformQuery({ node }) {
    const body = restContext.getStore()?.body;
    return body ? new FromBody(body).transformNode(node) : node;
  },
  transformResult: async ({ result }) => result,
};
