// Cross-origin answers of REST, Auth and Storage, as hosted Supabase's gateway gives them. Functions answer for themselves.
export const crossOrigin = Object.freeze({
  "access-control-allow-origin": "*",
  "access-control-expose-headers":
    "content-encoding, content-location, content-range, content-type, date, link, location, preference-applied, range-unit, retry-after, x-request-id, x-total-count",
});

export const isPreflight = (request) => request.method === "OPTIONS" && request.headers.has("access-control-request-method");

export const preflight = (request) =>
  new Response(null, {
    status: 204,
    headers: {
      ...crossOrigin,
      "access-control-allow-methods": "GET, HEAD, PUT, PATCH, POST, DELETE, OPTIONS, TRACE, CONNECT",
      "access-control-allow-headers": request.headers.get("access-control-request-headers") ?? "authorization, apikey, content-type, x-client-info",
      "access-control-max-age": "3600",
      vary: "access-control-request-headers",
    },
  });
