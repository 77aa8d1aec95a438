// lite's storage adapter over S3. What lite does not hand over (range, conditions, length) comes by the request's context.
import { AsyncLocalStorage } from "node:async_hooks";
import { createReadStream, createWriteStream } from "node:fs";
import { mkdtemp, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable, Transform } from "node:stream";
import { pipeline } from "node:stream/promises";
import { CopyObjectCommand, DeleteObjectCommand, GetObjectCommand, HeadObjectCommand, PutObjectCommand, S3Client } from "@aws-sdk/client-s3";
import { unmarked } from "./names.mjs";
import { settings } from "./settings.mjs";

/** Of each Storage request: {headers, method, marked, status?, failure?}; the adapter sets the last two for the answer. */
export const requestContext = new AsyncLocalStorage();

export class StorageFailure extends Error {
  constructor(status, error, message) {
    super(message);
    Object.assign(this, { status, error });
  }
}

const BUCKET = "storage"; // one bucket in S3 for all of Storage's, whose names S3 might refuse
const MEMORY_BYTES = 4 * 1024 ** 2; // of an upload whose length nobody said
const keyOf = (bucket, key) => `${bucket}/${unmarked(key)}`;

export class Objects {
  driver = null;

  constructor(database) {
    this.database = database;
    this.s3 = new S3Client({
      endpoint: settings.objectsUrl,
      region: "us-east-1",
      credentials: { accessKeyId: "local", secretAccessKey: "local" },
      forcePathStyle: true,
      maxAttempts: 1, // a stream cannot be sent twice
      requestChecksumCalculation: "WHEN_REQUIRED",
      responseChecksumValidation: "WHEN_REQUIRED",
    });
  }

  async #send(command) {
    try {
      return await this.s3.send(command);
    } catch (error) {
      const context = requestContext.getStore();
      const failure = error instanceof StorageFailure ? error : (error.cause instanceof StorageFailure ? error.cause : asFailure(error));
      if (context) context.failure = failure;
      throw failure;
    }
  }

  async uploadObject(bucket, key, _version, body, contentType, cacheControl) {
    const limit = await this.#limit(bucket);
    const put = async (Body, ContentLength) => {
      const said = { ContentLength, ContentType: contentType, CacheControl: cacheControl };
      const { ETag } = await this.#send(new PutObjectCommand({ Bucket: BUCKET, Key: keyOf(bucket, key), Body, ...said }));
      return metadataOf({ ...said, ETag });
    };
    const size = body instanceof Uint8Array ? body.byteLength : Number(requestContext.getStore()?.headers.get("content-length") ?? 0);
    if (size > limit) throw tooLarge(limit);
    if (body instanceof Uint8Array) return put(body, size);
    const source = Readable.fromWeb(body);
    // S3's client never ends a request whose body is shorter than it said.
    return size > MEMORY_BYTES ? put(source.on("error", () => {}), size) : measured(source, limit, put);
  }

  async #limit(bucket) {
    const [row] = await this.database.driver`select file_size_limit as own from storage.buckets where id = ${bucket}`;
    return Math.min(row?.own ?? Infinity, settings.objectBytes);
  }

  async getObject(bucket, key) {
    const context = requestContext.getStore() ?? { headers: new Headers(), method: "GET" };
    const header = (name) => context.headers.get(name) ?? undefined;
    const since = header("if-modified-since");
    const Command = context.method === "HEAD" ? HeadObjectCommand : GetObjectCommand;
    try {
      const answer = await this.s3.send(
        new Command({
          Bucket: BUCKET, Key: keyOf(bucket, key), Range: header("range"), IfNoneMatch: header("if-none-match"),
          IfModifiedSince: since && !Number.isNaN(Date.parse(since)) ? new Date(since) : undefined,
        }),
      );
      if (answer.ContentRange) context.status = 206;
      return { body: answer.Body?.transformToWebStream() ?? new Uint8Array(), metadata: metadataOf(answer) };
    } catch (error) {
      const status = error.$metadata?.httpStatusCode;
      if (status === 304 || status === 416) {
        context.status = status;
        const whole = await this.headObject(bucket, key);
        return { body: new Uint8Array(), metadata: { ...whole, contentLength: 0, contentRange: status === 416 ? `bytes */${whole.size}` : undefined } };
      }
      context.failure = asFailure(error);
      throw context.failure;
    }
  }

  async headObject(bucket, key) {
    return metadataOf(await this.#send(new HeadObjectCommand({ Bucket: BUCKET, Key: keyOf(bucket, key) })));
  }

  async deleteObject(bucket, key) {
    await this.#send(new DeleteObjectCommand({ Bucket: BUCKET, Key: keyOf(bucket, key) }));
  }

  async deleteObjects(bucket, keys) {
    for (const key of keys) await this.deleteObject(bucket, key);
  }

  async copyObject(sourceBucket, source, _version, bucket, key) {
    const CopySource = `${BUCKET}/${keyOf(sourceBucket, source)}`.split("/").map(encodeURIComponent).join("/");
    const { CopyObjectResult } = await this.#send(new CopyObjectCommand({ Bucket: BUCKET, Key: keyOf(bucket, key), CopySource }));
    return { httpStatusCode: 200, eTag: CopyObjectResult.ETag, lastModified: CopyObjectResult.LastModified };
  }

  async privateAssetUrl(bucket, key) {
    return `${settings.objectsUrl}/${BUCKET}/${encodeURI(keyOf(bucket, key))}`;
  }
}

function metadataOf(answer) {
  const size = answer.ContentLength ?? 0;
  return {
    cacheControl: answer.CacheControl ?? "no-cache", contentLength: size, size, mimetype: answer.ContentType ?? "application/octet-stream",
    lastModified: answer.LastModified ?? new Date(), eTag: answer.ETag ?? "", contentRange: answer.ContentRange, httpStatusCode: 200,
  };
}

const tooLarge = (limit) => {
  const failure = new StorageFailure(413, "Payload too large", `The object exceeded the maximum allowed size of ${limit} bytes`);
  const context = requestContext.getStore();
  if (context) context.failure = failure;
  return failure;
};

function asFailure(error) {
  const status = error.$metadata?.httpStatusCode;
  if (status === 404) return new StorageFailure(404, "not_found", "Object not found");
  if (status === 507) return new StorageFailure(507, "InsufficientStorage", "The disk of the object store is full");
  return new StorageFailure(status >= 500 ? status : 503, "StorageBackendError", "The object store did not take the request");
}

/** S3 wants a length first: a body of unknown length is read to its end, into memory, or on disk when it is large. */
async function measured(source, limit, put) {
  const held = [];
  let size = 0;
  for await (const chunk of source.iterator({ destroyOnReturn: false })) {
    held.push(chunk);
    size += chunk.length;
    if (size > Math.min(MEMORY_BYTES, limit)) return spooled(held, source, limit, put);
  }
  return put(Buffer.concat(held), size);
}

async function spooled(held, source, limit, put) {
  const folder = await mkdtemp(join(tmpdir(), "sidejob-upload-"));
  try {
    const file = join(folder, "body");
    let size = 0;
    const counted = new Transform({
      transform(chunk, _encoding, done) {
        size += chunk.length;
        done(size > limit ? tooLarge(limit) : null, chunk);
      },
    });
    const whole = async function* () {
      yield* held;
      yield* source;
    };
    await pipeline(whole, counted, createWriteStream(file));
    return await put(createReadStream(file), (await stat(file)).size);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}
