// jobs-recent: see functions/jobs-recent/main.py.
import { forward } from "../_shared/forward.ts";

Deno.serve(forward("jobs-recent"));
