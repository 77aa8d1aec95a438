// supabase-js, unmodified, on a channel that outlives its server: one JSON line for each thing it saw.
import { createRequire } from "node:module";

const { createClient } = createRequire(process.argv[2])("@supabase/supabase-js");
const say = (what, value = null) => console.log(JSON.stringify([what, value]));
const supabase = createClient(process.env.SERVER_URL, process.env.SUPABASE_PUBLISHABLE_KEY, { auth: { persistSession: false } });
const live = (message) => message.message === "Subscribed to PostgreSQL" && say("live");
supabase
  .channel("db")
  .on("system", {}, live)
  .on("postgres_changes", { event: "INSERT", schema: "realtime_test", table: "open", filter: "b=eq.js back" }, ({ new: row }) => say("row", row.a))
  .subscribe((status) => say(status));
