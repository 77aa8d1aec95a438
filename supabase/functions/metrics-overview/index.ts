// metrics-overview: see functions/metrics-overview/main.py.
import { forward } from "../_shared/forward.ts";

Deno.serve(forward("metrics-overview"));
