// artifacts-sweep: see functions/artifacts-sweep/main.py.
import { forward } from "../_shared/forward.ts";

Deno.serve(forward("artifacts-sweep"));
