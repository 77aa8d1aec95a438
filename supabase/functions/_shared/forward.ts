// What functions/v1/<name> does on a hosted project: the request goes on to the function of that name on Cloud Run, and
// its answer comes back, both as they are and as they come. The caller's own authorization goes along and is checked
// there; nothing is decided here, and no key is known here.

// RFC 9110, 7.6.1: these speak of one connection.
const CONNECTION = [
  "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer",
  "transfer-encoding", "upgrade",
];
// The host is another one, and a body that streams has no length yet.
const NOT_SENT = [...CONNECTION, "host", "content-length"];

/** The handler of one function's forwarder. SIDEJOB_FUNCTIONS says where it is: `https://{name}-1234.region.run.app`. */
export function forward(name: string): (request: Request) => Promise<Response> {
  return async (request) => {
    const address = Deno.env.get("SIDEJOB_FUNCTIONS");
    if (!address) return unavailable(request, "SIDEJOB_FUNCTIONS is not set: ./deploy.sh functions sets it.");
    const url = new URL(request.url);
    // The platform sends /<name>/…; elsewhere it may be /functions/v1/<name>/….
    const [, path] = url.pathname.split(new RegExp(`/${name}(/.*)?$`, "s"));
    const headers = without(request.headers, NOT_SENT);
    const client = addressOf(request.headers);
    headers.delete("x-forwarded-for");
    if (client) headers.set("x-forwarded-for", client);
    headers.set("accept-encoding", "identity"); // fetch would unpack the answer, and its length would be wrong
    try {
      const answer = await fetch(address.replace("{name}", name) + (path ?? "/") + url.search, {
        method: request.method,
        headers,
        body: request.body,
        redirect: "manual",
      });
      return new Response(answer.body, { status: answer.status, headers: without(answer.headers, CONNECTION) });
    } catch (error) {
      console.error(`${name} cannot be reached:`, error instanceof Error ? error.message : error);
      return unavailable(request, `The function ${name} cannot be reached just now. Try again.`);
    }
  };
}

/**
 * The one address that the function may believe: with what comes after it, this forwarder's own, it counts two trusted
 * proxies (TRUSTED_PROXIES=2). Cloudflare stands before a hosted project and writes cf-connecting-ip itself, whatever a
 * client sent (https://developers.cloudflare.com/fundamentals/reference/http-headers/). Elsewhere it is what the
 * nearest proxy noted last; what stands before that anybody could have written.
 */
function addressOf(headers: Headers): string {
  const noted = (headers.get("cf-connecting-ip") ?? headers.get("x-forwarded-for") ?? "").split(",").at(-1)!.trim();
  return /^[0-9a-fA-F.:]{2,45}$/.test(noted) ? noted : "";
}

function without(headers: Headers, names: string[]): Headers {
  const kept = new Headers(headers);
  for (const name of names) kept.delete(name);
  return kept;
}

/** The functions' own envelope. A preflight passes, so that a page sees it instead of an error of CORS. */
function unavailable(request: Request, error: string): Response {
  const headers = {
    "access-control-allow-origin": "*",
    "access-control-expose-headers": "x-request-id, retry-after, etag",
    "cache-control": "private, no-store",
  };
  if (request.method === "OPTIONS") {
    const wanted = request.headers.get("access-control-request-headers") ?? "authorization, apikey, content-type, x-client-info";
    return new Response(null, {
      status: 204,
      headers: { ...headers, "access-control-allow-headers": wanted, "access-control-allow-methods": "GET, POST, OPTIONS" },
    });
  }
  const requestId = request.headers.get("x-request-id") ?? crypto.randomUUID();
  return Response.json(
    { error, code: "function_unavailable", details: null, hint: null, requestId },
    { status: 503, headers: { ...headers, "x-request-id": requestId, "retry-after": "2" } },
  );
}
