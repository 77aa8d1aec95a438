// /functions/v1/<name> to that function's process, /realtime/v1 to the Realtime server: bytes in, bytes out.
import http from "node:http";
import { connect } from "node:net";
import { settings } from "./settings.mjs";
import { crossOrigin } from "./cors.mjs";

// What concerns one connection alone. `expect`, too: whoever sent it has had his 100 from here.
const HOP = new Set(["connection", "expect", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer", "transfer-encoding", "upgrade"]);
// gunicorn closes a connection that was idle for 2 seconds; one that is let go before cannot be lost under a request.
const agent = new http.Agent({ keepAlive: true, maxSockets: 256, timeout: 1000 });

export function envelope(response, status, code, error, requestId, extra = {}) {
  const body = JSON.stringify({ error, code, details: null, hint: null, requestId });
  response.writeHead(status, { "content-type": "application/json", "x-request-id": requestId, ...crossOrigin, ...extra });
  response.end(body);
}

export function functions(request, response, requestId) {
  const [, name, rest] = /^\/functions\/v1\/([^/?]*)(.*)$/.exec(request.url) ?? [];
  const port = settings.functions[name];
  if (!port) return envelope(response, 404, "not_found", `There is no function named ${JSON.stringify(decoded(name ?? ""))}.`, requestId);
  forward(request, response, requestId, port, rest.startsWith("/") ? rest : `/${rest}`, `The function ${name} is not up.`);
}

export const realtime = (request, response, requestId) =>
  forward(request, response, requestId, settings.realtimePort, request.url, "Realtime is not up.");

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function forward(request, response, requestId, port, path, down) {
  const length = Number(request.headers["content-length"] ?? 0);
  if (length > settings.functionBytes)
    return envelope(response, 413, "payload_too_large", `A request body holds at most ${settings.functionBytes} bytes.`, requestId, { connection: "close" });
  // As nginx, no name with an underscore: to the server behind, SCRIPT_NAME would be its own variable.
  const headers = Object.fromEntries(Object.entries(request.headers).filter(([name]) => !HOP.has(name) && !name.includes("_")));
  Object.assign(headers, {
    "x-request-id": requestId,
    "x-forwarded-host": request.headers.host ?? "",
    "x-forwarded-proto": "http",
    "x-forwarded-for": request.socket.remoteAddress ?? "",
  });
  if (request.headers["transfer-encoding"]) headers["transfer-encoding"] = "chunked";
  const upstream = http.request({ host: "127.0.0.1", port, path, method: request.method, headers, agent });
  upstream.on("response", (answer) => {
    const passed = Object.fromEntries(Object.entries(answer.headers).filter(([name]) => !HOP.has(name)));
    response.writeHead(answer.statusCode, { "x-request-id": requestId, ...passed });
    response.flushHeaders(); // a stream's first byte may be long in coming
    answer.pipe(response);
    answer.on("error", () => response.destroy());
  });
  upstream.on("error", (error) => {
    if (response.headersSent) return response.destroy();
    // A kept connection that the function closed just then carried nothing: a request without a body may go again.
    if (upstream.reusedSocket && error.code === "ECONNRESET" && ["GET", "HEAD", "OPTIONS"].includes(request.method))
      return forward(request, response, requestId, port, path, down);
    envelope(response, 503, "unavailable", down, requestId, { "retry-after": "1" });
  });
  response.on("close", () => upstream.destroy());
  request.pipe(upstream);
}

/** A WebSocket handshake, passed on as it came. */
export function upgradeRealtime(request, socket, head) {
  socket.on("error", () => socket.destroy());
  if (!request.url.startsWith("/realtime/v1/")) return socket.end("HTTP/1.1 404 Not Found\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
  const upstream = connect(settings.realtimePort, "127.0.0.1", () => {
    const lines = [`${request.method} ${request.url} HTTP/1.1`];
    for (let i = 0; i < request.rawHeaders.length; i += 2) lines.push(`${request.rawHeaders[i]}: ${request.rawHeaders[i + 1]}`);
    upstream.write(`${lines.join("\r\n")}\r\n\r\n`);
    upstream.write(head);
    upstream.pipe(socket).pipe(upstream);
  });
  upstream.on("error", () => {
    if (upstream.bytesRead) socket.destroy();
    else socket.end("HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
  });
  socket.on("close", () => upstream.destroy());
  upstream.on("close", () => socket.destroy());
}
