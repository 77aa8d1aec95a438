// functions.invoke of the official JavaScript client: prints what its user sees of failures. Argument: a folder with node_modules.
import { createRequire } from "node:module";

const { createClient } = createRequire(`${process.argv[2]}/`)("@supabase/supabase-js");
const { SUPABASE_URL: url, SUPABASE_PUBLISHABLE_KEY: key, DEMO_EMAIL: email, DEMO_PASSWORD: password } = process.env;
const supabase = createClient(url, key, { auth: { persistSession: false, autoRefreshToken: false } });
const seen = {};
const told = async ({ error }) => ({ name: error.name, status: error.context.status, ...(await error.context.json()) });

seen.signed_out = await told(await supabase.functions.invoke("jobs-recent", { method: "GET" }));
await supabase.auth.signInWithPassword({ email, password });
seen.bad_field = await told(await supabase.functions.invoke("task-assign", { body: { type: "browser.screenshot", priority: 99 } }));
seen.bad_query = await told(await supabase.functions.invoke("jobs-recent?limit=0", { method: "GET" }));
seen.not_found = await told(await supabase.functions.invoke("job-cancel", { body: { jobId: "0f0e0d0c-0b0a-4908-8706-050403020100" } }));
seen.wrong_method = await told(await supabase.functions.invoke("jobs-recent", { body: {} }));
seen.read = (await supabase.functions.invoke("jobs-recent?limit=1", { method: "GET" })).data.count;
console.log(JSON.stringify(seen));
