// The local stack's front door: REST, Auth and Storage by lite in this process, functions and Realtime by proxy.
import { randomUUID } from "node:crypto";
import { readFile } from "node:fs/promises";
import http from "node:http";
import { join } from "node:path";
import { getRequestListener } from "@hono/node-server";
import { App } from "@supabase/lite";
import { adminUsers } from "./admin.mjs";
import { auth } from "./auth.mjs";
import { crossOrigin, isPreflight, preflight } from "./cors.mjs";
import { Database } from "./database.mjs";
import { Objects } from "./objects.mjs";
import { functions, realtime, upgradeRealtime } from "./proxy.mjs";
import { rest, skipSessionLookup } from "./rest.mjs";
import { settings } from "./settings.mjs";
import { storage } from "./storage.mjs";

// A connection that Postgres refuses because it is just starting can leave the driver waiting for ever.
const START_MS = 60_000;
const late = setTimeout(() => {
  console.error("gateway stops: the database did not answer while it was starting");
  process.exit(1);
}, START_MS);

const database = new Database(settings.databaseUrl);
const app = new App({
  connection: database,
  auth: {
    enabled: true, jwt_secret: settings.jwtSecret, publishable_key: settings.publishableKey, secret_key: settings.secretKey, site_url: settings.url,
  },
  // Hosted projects load the extension safeupdate.
  api: { enabled: true, schemas: ["public"], max_rows: 1000, pg_safe_update: true },
  db: { migrations: { enabled: false } }, // ours are applied before, as the Supabase CLI does it
  storage: { enabled: true, file_size_limit: "256MiB" },
  studio: { enabled: false },
  options: { server: { admin: false, disableStudio: true, disableFallback: true, middlewares: [skipSessionLookup] } },
});
app._storageAdapter = new Objects(database);
await app.ensureSystemSchema();
await database.driver.unsafe(settings.systemSchemas);
await database.followSchema();
await database.introspect({ useCache: true });
clearTimeout(late);

const lite = (request) => app.fetch(request, { peerAddress: null });
const services = [
  ["/rest/v1/", rest(database)],
  ["/auth/v1/admin/users", guarded(adminUsers(database))],
  ["/auth/v1/", auth(database)],
  ["/storage/v1/", storage(database)],
];

/** The API key's check, which lite does for the routes that it knows itself. */
function guarded(service) {
  return (request) => {
    const key = request.headers.get("apikey") ?? new URL(request.url).searchParams.get("apikey");
    if (key === settings.secretKey || key === settings.publishableKey) return service(request);
    return Response.json(
      key
        ? { message: "Invalid API key", hint: "Double check your Supabase `apikey`" }
        : { message: "No API key found in request", hint: "No `apikey` request header or url param was found." },
      { status: 401 },
    );
  };
}

async function answer(request) {
  const path = new URL(request.url).pathname;
  const [prefix, service] = services.find(([start]) => path.startsWith(start)) ?? [];
  if (!service) return Response.json({ message: "no Route matched with those values" }, { status: 404 });
  if (isPreflight(request)) return preflight(request);
  if (prefix === "/storage/v1/") return service(request, lite);
  const bounded = await withinLimit(request);
  return bounded ? service(bounded, lite) : Response.json({ message: "Request body too large" }, { status: 413 });
}

/** REST and Auth hold bodies in memory, so theirs are bounded, chunked ones too. */
async function withinLimit(request) {
  if (!request.body || ["GET", "HEAD"].includes(request.method)) return request;
  if (Number(request.headers.get("content-length")) > settings.jsonBytes) return null;
  if (request.headers.has("content-length")) return request;
  const chunks = [];
  let size = 0;
  for await (const chunk of request.body) {
    size += chunk.length;
    if (size > settings.jsonBytes) return null;
    chunks.push(chunk);
  }
  return new Request(request.url, { method: request.method, headers: request.headers, body: Buffer.concat(chunks) });
}

const listener = getRequestListener(
  async (request) => {
    const response = await answer(request);
    for (const [name, value] of Object.entries(crossOrigin)) response.headers.set(name, value);
    response.headers.set("x-request-id", requestIdOf(request.headers.get("x-request-id")));
    return response;
  },
  {
    errorHandler: (error) => {
      console.error("gateway:", error);
      return Response.json({ message: "An unexpected error occurred" }, { status: 500, headers: crossOrigin });
    },
  },
);

const requestIdOf = (given) => (/^[\w.:+/=-]{8,128}$/.test(given ?? "") ? given : randomUUID());

// Longer than any client keeps an idle connection: one that is closed under a request loses it. Hosted projects keep theirs as long.
const KEEP_ALIVE_MS = 75_000;
// Other upgrades than to a WebSocket are offers that a server may pass over: Java's client makes one of HTTP/2 in each request.
const shouldUpgradeCallback = ({ headers }) => headers.upgrade?.toLowerCase() === "websocket";
const gateway = http.createServer({ requestTimeout: 0, keepAliveTimeout: KEEP_ALIVE_MS, shouldUpgradeCallback }, (request, response) => {
  const requestId = requestIdOf(request.headers["x-request-id"]);
  request.headers["x-request-id"] = requestId;
  if (request.url.startsWith("/functions/v1/")) return functions(request, response, requestId);
  if (request.url.startsWith("/realtime/v1")) return realtime(request, response, requestId);
  listener(request, response);
});
gateway.on("upgrade", upgradeRealtime);

const demo = http.createServer(async (request, response) => {
  const page = ["/", "/index.html"].includes(request.url.split("?")[0]) && (await readFile(join(settings.demoFolder, "index.html")));
  response.writeHead(page ? 200 : 404, { "content-type": "text/html; charset=utf-8", "cache-control": "no-store" });
  response.end(page || "not found");
});

gateway.listen(settings.port, "127.0.0.1");
demo.listen(settings.demoPort, "127.0.0.1");

process.on("SIGTERM", async () => {
  gateway.close();
  demo.close();
  gateway.closeIdleConnections();
  setTimeout(() => gateway.closeAllConnections(), 2000).unref();
  setTimeout(() => process.exit(0), 2500).unref();
  await new Promise((resolve) => gateway.on("close", resolve));
  process.exit(0);
});
process.on("uncaughtException", (error) => {
  console.error("gateway stops:", error);
  process.exit(1);
});
