// collab: see functions/collab/main.py.
import { forward } from "../_shared/forward.ts";

Deno.serve(forward("collab"));
