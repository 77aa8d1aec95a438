// dlq-retry: see functions/dlq-retry/main.py.
import { forward } from "../_shared/forward.ts";

Deno.serve(forward("dlq-retry"));
