// functions.invoke of the official client, for every call on standard input; one JSON line of what came of each.
import { createClient } from "@supabase/supabase-js";

const { url, key, token, calls } = JSON.parse(await new Response(process.stdin).text());
const supabase = createClient(url, key, { global: { headers: { Authorization: `Bearer ${token}` } } });
for (const [name, options] of calls) {
  const { data, error } = await supabase.functions.invoke(name, options);
  const response = error?.context;
  console.log(JSON.stringify({ name, data, error: error?.name ?? null, status: response?.status ?? 200, body: response ? await response.json() : null }));
}
