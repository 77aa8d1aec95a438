// dlq-list: see functions/dlq-list/main.py.
import { forward } from "../_shared/forward.ts";

Deno.serve(forward("dlq-list"));
