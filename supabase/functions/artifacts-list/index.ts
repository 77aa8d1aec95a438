// artifacts-list: see functions/artifacts-list/main.py.
import { forward } from "../_shared/forward.ts";

Deno.serve(forward("artifacts-list"));
