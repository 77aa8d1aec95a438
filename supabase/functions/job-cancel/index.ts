// job-cancel: see functions/job-cancel/main.py.
import { forward } from "../_shared/forward.ts";

Deno.serve(forward("job-cancel"));
