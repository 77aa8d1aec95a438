// job-status: see functions/job-status/main.py.
import { forward } from "../_shared/forward.ts";

Deno.serve(forward("job-status"));
