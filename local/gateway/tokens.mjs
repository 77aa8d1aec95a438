// HS256 tokens, checked and made without a library: the gateway knows one key.
import { createHmac, timingSafeEqual } from "node:crypto";
import { settings } from "./settings.mjs";

const encode = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
const signature = (text) => createHmac("sha256", settings.jwtSecret).update(text).digest();

export function sign(claims) {
  const text = `${encode({ alg: "HS256", typ: "JWT" })}.${encode(claims)}`;
  return `${text}.${signature(text).toString("base64url")}`;
}

/** The claims of a token of ours, expired or not; null when it is anything else. */
export function read(token) {
  const [header, claims, mark, ...rest] = String(token).split(".");
  if (!mark || rest.length) return null;
  const given = Buffer.from(mark, "base64url");
  const right = signature(`${header}.${claims}`);
  if (given.length !== right.length || !timingSafeEqual(given, right)) return null;
  try {
    if (JSON.parse(Buffer.from(header, "base64url")).alg !== "HS256") return null;
    return JSON.parse(Buffer.from(claims, "base64url"));
  } catch {
    return null;
  }
}

export const expired = (claims) => typeof claims.exp === "number" && claims.exp <= Date.now() / 1000;

/** The person's token of a request; null for none, and for an API key sent where a token belongs. */
export function bearer(headers) {
  const token = /^Bearer\s+(\S+)\s*$/i.exec(headers.get("authorization") ?? "")?.[1];
  return token && !token.startsWith("sb_") ? token : null;
}
