// dlq-discard: see functions/dlq-discard/main.py.
import { forward } from "../_shared/forward.ts";

Deno.serve(forward("dlq-discard"));
