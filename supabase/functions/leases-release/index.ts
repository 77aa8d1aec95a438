// leases-release: see functions/leases-release/main.py.
import { forward } from "../_shared/forward.ts";

Deno.serve(forward("leases-release"));
