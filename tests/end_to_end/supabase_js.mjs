// The official JavaScript client, unmodified, over the stack: does what test_official_clients.py does in Python and
// prints what came of each step as JSON. Arguments: a folder with node_modules, the bucket's name, the table's name.
import { createRequire } from "node:module";

const [packages, bucket, probe] = process.argv.slice(2);
const { createClient } = createRequire(`${packages}/`)("@supabase/supabase-js");
const { SUPABASE_URL: url, SUPABASE_PUBLISHABLE_KEY: publishable, SUPABASE_SECRET_KEY: secret, DEMO_EMAIL: email, DEMO_PASSWORD: password } = process.env;
const options = { auth: { persistSession: false, autoRefreshToken: false } };
const user = createClient(url, publishable, options);
const server = createClient(url, secret, options);
const seen = {};

const failure = ({ error }) => ({ code: error?.code ?? null, message: error?.message ?? null, details: error?.details ?? null, hint: error?.hint ?? null });
const good = ({ data, error }) => {
  if (error) throw error;
  return data;
};

// Auth
seen.wrong_password = failure(await user.auth.signInWithPassword({ email, password: "wrong" })).code;
const session = good(await user.auth.signInWithPassword({ email, password }));
seen.signed_in = session.user.email;
seen.user = good(await user.auth.getUser()).user.email;
const refreshed = good(await user.auth.refreshSession());
seen.refreshed = good(await user.auth.getUser(refreshed.session.access_token)).user.email;

// REST
const table = () => server.from(probe);
seen.inserted = good(await table().insert({ id: 1, at: "2026-01-02T03:04:05.07+02:00", plain: "2026-01-02T03:04:05", day: "2026-01-02", amount: 1.5, data: { at: "2026-01-02 03:04:05+00", list: [1, "x"] }, words: ["a", "b"] }).select().single());
seen.upserted = good(await table().upsert([{ id: 1, amount: 2, data: null }, { id: 2, amount: null, data: [1, 2] }]).select("id, amount, data").order("id"));
seen.worded = good(await table().insert([{ id: 3, data: "text" }, { id: 4, data: "{}" }, { id: 5, data: true }]).select()).map(({ data }) => data);
seen.echoed = good(await server.rpc(`${probe}_echo`, { given: "{}", words: [], at: null })).given;
good(await table().delete().gt("id", 2));
seen.counted = (await table().select("*", { count: "exact", head: true })).count;
seen.duplicate = failure(await table().insert({ id: 1 })).code;
seen.single_of_none = failure(await table().select().eq("id", 9).single()).code;
seen.denied = failure(await user.from(probe).select()).code;
seen.setof = good(await server.rpc(`${probe}_rows`));
seen.out = good(await server.rpc(`${probe}_out`, { n: 3 }));
seen.scalar = good(await server.rpc(`${probe}_scalar`));
seen.nothing = (await server.rpc(`${probe}_void`)).status;
seen.echo = good(await server.rpc(`${probe}_echo`, { given: [{ a: 1 }], words: ["x"], at: "2026-01-02T03:04:05Z" }));
seen.refused = failure(await server.rpc(`${probe}_refuse`));

// Storage
good(await server.storage.createBucket(bucket));
const files = server.storage.from(bucket);
seen.uploaded = good(await files.upload("a/one.txt", new Blob(["one"], { type: "text/plain" }), { metadata: { made: "here" } })).fullPath;
seen.uploaded_bytes = good(await files.upload("a/b/two (1).txt", Buffer.from("two"), { contentType: "text/plain" })).path;
seen.conflict = (await files.upload("a/one.txt", Buffer.from("x"))).error.message;
good(await files.upload("a/one.txt", Buffer.from("uno"), { contentType: "text/plain", upsert: true }));
seen.downloaded = await good(await files.download("a/one.txt")).text();
seen.listed = good(await files.list("a", { sortBy: { column: "name", order: "asc" } })).map(({ name, id }) => [name, id !== null]);
const info = good(await files.info("a/one.txt"));
seen.info = [info.name, info.size, info.contentType];
seen.exists = [(await files.exists("a/one.txt")).data, (await files.exists("a/none")).data];
const signed = good(await files.createSignedUrl("a/b/two (1).txt", 60)).signedUrl;
seen.signed = await (await fetch(signed)).text();
seen.ranged = await (await fetch(signed, { headers: { range: "bytes=1-" } })).text();
seen.signed_many = good(await files.createSignedUrls(["a/one.txt", "a/none"], 60)).map(({ signedUrl, error }) => [Boolean(signedUrl), Boolean(error)]);
const offer = good(await files.createSignedUploadUrl("a/three.txt"));
good(await files.uploadToSignedUrl(offer.path, offer.token, new Blob(["three"], { type: "text/plain" })));
good(await files.copy("a/three.txt", "a/four.txt"));
good(await files.move("a/four.txt", "a/five.txt"));
seen.moved = await good(await files.download("a/five.txt")).text();
seen.missing = (await files.download("a/four.txt")).error.message;
seen.forbidden = (await user.storage.from(bucket).upload("x", Buffer.from("x"))).error.message;
seen.removed = good(await files.remove(["a/one.txt", "a/none"])).length;

// Auth's admin API
const admin = server.auth.admin;
const address = `${bucket}@sidejob.test`;
const made = good(await admin.createUser({ email: address, password: "first-password", email_confirm: true, user_metadata: { name: "A" }, app_metadata: { team: 1 } })).user;
seen.made = [made.email, made.user_metadata.name, made.app_metadata.team, made.app_metadata.provider];
seen.made_twice = [(await admin.createUser({ email: address })).error].map(({ code, status }) => [code, status])[0];
seen.found = good(await admin.getUserById(made.id)).user.email;
const page = good(await admin.listUsers({ page: 1, perPage: 2 }));
seen.page = [page.users.length, page.total > 2, page.nextPage];
good(await admin.updateUserById(made.id, { password: "second-password", user_metadata: { name: "B" } }));
const other = createClient(url, publishable, options);
seen.old_password = (await other.auth.signInWithPassword({ email: address, password: "first-password" })).error.code;
const theirs = good(await other.auth.signInWithPassword({ email: address, password: "second-password" }));
seen.renamed = theirs.user.user_metadata.name;
good(await admin.updateUserById(made.id, { ban_duration: "1h" }));
seen.banned = (await other.auth.signInWithPassword({ email: address, password: "second-password" })).error.code;
good(await admin.updateUserById(made.id, { ban_duration: "none" }));
good(await admin.deleteUser(made.id));
seen.deleted = (await admin.getUserById(made.id)).error.code;
seen.token_of_deleted = (await other.auth.getUser(theirs.session.access_token)).error.code;
seen.not_admin = (await createClient(url, publishable, options).auth.admin.listUsers()).error.code;

const last = (await user.auth.getSession()).data.session.access_token;
seen.signed_out = (await user.auth.signOut()).error;
seen.after_sign_out = (({ error }) => error.code ?? error.name)(await server.auth.getUser(last));
console.log(JSON.stringify(seen));
process.exit(0);
