// supabase-js, unmodified, against the stack in the environment: one JSON line for each thing it saw.
import { createRequire } from "node:module";

const { createClient } = createRequire(process.argv[2])("@supabase/supabase-js");
const { SUPABASE_URL, SUPABASE_PUBLISHABLE_KEY, DEMO_EMAIL, DEMO_PASSWORD, OTHER_EMAIL, OTHER_PASSWORD, TOPIC } = process.env;
const say = (what, value = null) => console.log(JSON.stringify([what, value]));
const client = () => createClient(SUPABASE_URL, SUPABASE_PUBLISHABLE_KEY, { auth: { persistSession: false, autoRefreshToken: false } });
const signedIn = async (email, password) => {
  const supabase = client();
  const { error } = await supabase.auth.signInWithPassword({ email, password });
  if (error) throw error;
  return supabase;
};
const subscribed = (channel) =>
  new Promise((resolve) => channel.subscribe((status, error) => status !== "SUBSCRIBED" ? resolve(`${status}: ${error?.message ?? ""}`) : resolve(status)));
/** Resolves with what `until` makes of the first call that it takes. */
const first = (listen) => new Promise((resolve) => listen(resolve));

const [ann, bob] = [await signedIn(DEMO_EMAIL, DEMO_PASSWORD), await signedIn(OTHER_EMAIL, OTHER_PASSWORD)];

const hers = ann.channel(TOPIC, { config: { broadcast: { self: true, ack: true }, presence: { key: "ann" }, private: true } });
const his = bob.channel(TOPIC, { config: { presence: { key: "bob" }, private: true } });
const heard = [];
for (const [who, channel] of [["ann", hers], ["bob", his]])
  channel.on("broadcast", { event: "*" }, ({ event, payload }) => heard.push([who, event, payload instanceof ArrayBuffer ? [...new Uint8Array(payload)] : payload]));
const together = first((resolve) => {
  his.on("presence", { event: "sync" }, () => Object.keys(his.presenceState()).length === 2 && resolve(Object.keys(his.presenceState()).sort()));
});
const left = first((resolve) => his.on("presence", { event: "leave" }, ({ key }) => resolve(key)));
say("joined", [await subscribed(hers), await subscribed(his)]);
await hers.track({ online: true });
await his.track({ online: true });
say("present", await together);

say("ack", await hers.send({ type: "broadcast", event: "socket", payload: { n: 1 } }));
await hers.send({ type: "broadcast", event: "bytes", payload: new Uint8Array([0, 255]).buffer });
await hers.httpSend("http", { n: 2 });
const untilHeard = async (count) => {
  while (heard.length < count) await new Promise((resolve) => setTimeout(resolve, 10));
};
await untilHeard(6);
say("heard", heard.filter(([who]) => who === "bob"));
say("heard by oneself", heard.filter(([who]) => who === "ann").length);
await hers.untrack();
say("left", await left);

say("refused", await subscribed(ann.channel("nobody:may", { config: { private: true } })));

const changes = [];
const db = ann.channel("db").on("postgres_changes", { event: "INSERT", schema: "realtime_test", table: "open", filter: "b=eq.js" }, (payload) => changes.push(payload));
const live = first((resolve) => db.on("system", {}, (message) => message.extension === "postgres_changes" && resolve(message.message)));
say("db", await subscribed(db));
say("live", await live);
say("insert now");
while (!changes.length) await new Promise((resolve) => setTimeout(resolve, 10));
const { schema, table, eventType, new: row, old, errors } = changes[0];
say("change", { schema, table, eventType, row, old, errors });

await ann.realtime.setAuth((await ann.auth.refreshSession()).data.session.access_token);
await hers.send({ type: "broadcast", event: "after", payload: {} });
await untilHeard(8);
say("after a new token", heard.at(-1)[1]);
for (const supabase of [ann, bob]) await supabase.removeAllChannels();
say("done");
process.exit(0);
