// job-events: see functions/job-events/main.py.
import { forward } from "../_shared/forward.ts";

Deno.serve(forward("job-events"));
