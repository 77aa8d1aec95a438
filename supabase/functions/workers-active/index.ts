// workers-active: see functions/workers-active/main.py.
import { forward } from "../_shared/forward.ts";

Deno.serve(forward("workers-active"));
