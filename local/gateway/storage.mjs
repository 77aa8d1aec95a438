// /storage/v1: the requests of both official clients put as lite takes them, and its answers as Supabase Storage gives them.
import { Readable } from "node:stream";
import busboy from "busboy";
import { asFolder, foldersAndFiles } from "./listing.mjs";
import { marked, unmarked } from "./names.mjs";
import { exactAnswer } from "./numbers.mjs";
import { requestContext } from "./objects.mjs";
import { expired, read } from "./tokens.mjs";

const PREFIX = "/storage/v1";
// The characters that Storage takes in an object's name; others are 400 InvalidKey.
const KEY = /^[\w/!\-.*'() &$@=;:+,?]*$/;

const refuse = (status, error, message) =>
  Response.json({ statusCode: String(status), error, message }, { status: status >= 500 ? status : 400 });

export function storage(database) {
  return async (request, lite) => {
    const url = canonical(new URL(request.url));
    const { kind, name } = routeOf(request.method, url.pathname.slice(PREFIX.length));

    if (kind === "signed" || kind === "uploadSigned") {
      const claims = read(url.searchParams.get("token"));
      if (!claims) return refuse(400, "InvalidJWT", "invalid signature");
      if (expired(claims)) return refuse(400, "InvalidJWT", '"exp" claim timestamp check failed');
    }
    const upload = kind === "upload" || kind === "uploadSigned";
    const key = unmarked(decodeURI(name));
    if ((upload || kind === "signUpload") && !KEY.test(key)) return refuse(400, "InvalidKey", `Invalid key: ${key}`);

    if (kind === "signMany") return signMany(request, url, lite);
    const headers = new Headers(request.headers);
    let { body } = request;
    let asked = {};
    let file;
    if (upload && (headers.get("content-type") ?? "").startsWith("multipart/form-data")) {
      file = await filePart(request, headers);
      if (!file) return refuse(400, "InvalidRequest", "Missing file in multipart upload");
      body = Readable.toWeb(file);
    } else if (kind === "list" || kind === "sign") {
      asked = await request.json().catch(() => null);
      if (!asked || typeof asked !== "object") return refuse(400, "InvalidRequest", "The body must be a JSON object");
      headers.delete("content-length");
      // supabase-py sends expiresIn as text; lite's own list knows no folders, so it is asked for all below one.
      body = JSON.stringify(kind === "list" ? { prefix: asFolder(asked.prefix) } : { ...asked, expiresIn: Number(asked.expiresIn) });
    }
    const context = { headers, method: request.method, marked: key.includes("?") };
    const answer = await requestContext.run(context, () => lite(new Request(url, { method: request.method, headers, body, duplex: "half" })));
    file?.resume(); // what a refused upload left unread

    if (context.failure) return refuse(context.failure.status, context.failure.error, context.failure.message);
    if (context.status) return new Response(context.status === 206 ? answer.body : null, { status: context.status, headers: answer.headers });
    if (!answer.ok) return answer;
    if (kind === "upload" && headers.has("x-metadata")) await keepMetadata(database, answer.clone(), headers.get("x-metadata"));
    if ((kind === "download" || kind === "signed") && url.searchParams.has("download")) return asDownload(answer, url);
    const reshape = { list: (rows) => foldersAndFiles(rows, asked), sign: asSigned, signUpload: asUploadUrl, info: asInfo, uploadSigned: () => ({ Key: unmarked(decodeURI(url.pathname.split("/").slice(6).join("/"))) }) }[kind];
    if (reshape) return exactAnswer(Response.json(reshape(await answer.json())));
    return kind === "other" ? exactAnswer(answer) : answer;
  };
}

function routeOf(method, path) {
  const reads = method === "GET" || method === "HEAD";
  for (const [kind, fits, pattern] of [
    ["list", method === "POST", /^\/object\/list\/([^/]+)$/],
    ["signMany", method === "POST", /^\/object\/sign\/([^/]+)$/],
    ["sign", method === "POST", /^\/object\/sign\/([^/]+)\/(.+)$/],
    ["signUpload", method === "POST", /^\/object\/upload\/sign\/([^/]+)\/(.+)$/],
    ["uploadSigned", method === "PUT", /^\/object\/upload\/sign\/([^/]+)\/(.+)$/],
    ["signed", reads, /^\/object\/sign\/([^/]+)\/(.+)$/],
    ["info", reads, /^\/object\/info\/([^/]+)\/(.+)$/],
    ["upload", method === "POST" || method === "PUT", /^\/object\/(?!(?:list|move|copy|sign|info|upload)\/)([^/]+)\/(.+)$/],
    ["download", reads, /^\/object\/(?:public\/)?([^/]+)\/(.+)$/],
  ]) {
    const match = fits && pattern.exec(path);
    if (match) return { kind, bucket: match[1], name: match[2] ?? "" };
  }
  return { kind: "other", name: "" };
}

/** One spelling for each object: lite undoes only those percent signs that decodeURI undoes. */
function canonical(url) {
  const path = url.pathname.split("/").map(canonicalSegment).join("/");
  url.pathname = path.replace("/object/authenticated/", "/object/").replace(/\/object\/info\/(authenticated|public)\//, "/object/info/");
  return url;
}

function canonicalSegment(segment) {
  try {
    return encodeURI(marked(decodeURIComponent(segment))).replaceAll("#", "%23");
  } catch {
    return segment;
  }
}

/** The file of a form, as a stream; the form's other fields become the headers that a raw upload has. */
function filePart(request, headers) {
  return new Promise((resolve) => {
    const form = busboy({ headers: Object.fromEntries(request.headers), limits: { files: 1, fieldSize: 1024 ** 2 } });
    headers.delete("content-length");
    form.on("field", (name, value) => {
      if (name === "cacheControl") headers.set("cache-control", /^\d+$/.test(value) ? `max-age=${value}` : value);
      if (name === "metadata") headers.set("x-metadata", Buffer.from(value).toString("base64"));
    });
    form.on("file", (_name, file, { mimeType }) => {
      headers.set("content-type", mimeType);
      resolve(file);
    });
    form.on("close", () => resolve(null));
    form.on("error", () => resolve(null));
    Readable.fromWeb(request.body)
      .on("error", (error) => form.destroy(error))
      .pipe(form);
  });
}

async function keepMetadata(database, answer, encoded) {
  const { Id } = await answer.json();
  try {
    const metadata = JSON.parse(Buffer.from(encoded, "base64").toString());
    await database.driver`update storage.objects set user_metadata = ${database.driver.json(metadata)} where id = ${Id}`;
  } catch (error) {
    console.error("x-metadata was not kept:", error.message);
  }
}

const withoutPrefix = (path) => path.slice(PREFIX.length).replaceAll(marked("?"), "%3F");

const asSigned = ({ signedUrl }) => ({ signedURL: withoutPrefix(signedUrl) });

/** lite's router takes this for a single one without a name; so each is asked for by itself. */
async function signMany(request, url, lite) {
  const { paths, expiresIn } = (await request.json().catch(() => null)) ?? {};
  if (!Array.isArray(paths)) return refuse(400, "InvalidRequest", "body must have required property 'paths'");
  const headers = new Headers(request.headers);
  headers.delete("content-length");
  const signOne = async (path) => {
    const target = canonical(new URL(`${url.pathname}/${path.split("/").map(encodeURIComponent).join("/")}`, url));
    const one = new Request(target, { method: "POST", headers, body: JSON.stringify({ expiresIn: Number(expiresIn) }) });
    const answer = await requestContext.run({ headers, method: "POST", marked: path.includes("?") }, () => lite(one));
    const hidden = "Either the object does not exist or you do not have access to it";
    return { path, ...(answer.ok ? { ...asSigned(await answer.json()), error: null } : { signedURL: null, error: hidden }) };
  };
  return Response.json(await Promise.all(paths.map(String).map(signOne)));
}

const asUploadUrl = ({ signedUrl, token }) => ({ url: withoutPrefix(signedUrl), token });

const asInfo = (row) => ({
  id: row.id, name: row.name, version: row.version, bucket_id: row.bucket_id, size: row.httpMetadata.size, content_type: row.httpMetadata.mimetype,
  cache_control: row.httpMetadata.cacheControl, etag: row.httpMetadata.eTag, metadata: row.user_metadata, last_modified: row.httpMetadata.lastModified,
  created_at: row.created_at,
});

function asDownload(answer, url) {
  const name = url.searchParams.get("download") || unmarked(decodeURI(url.pathname.split("/").at(-1)));
  const headers = new Headers(answer.headers);
  headers.set("content-disposition", `attachment; filename=${encodeURIComponent(name)}; filename*=UTF-8''${encodeURIComponent(name)};`);
  return new Response(answer.body, { status: answer.status, headers });
}
