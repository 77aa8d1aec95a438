// worker-heartbeat: see functions/worker-heartbeat/main.py.
import { forward } from "../_shared/forward.ts";

Deno.serve(forward("worker-heartbeat"));
