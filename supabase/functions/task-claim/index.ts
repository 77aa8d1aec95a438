// task-claim: see functions/task-claim/main.py.
import { forward } from "../_shared/forward.ts";

Deno.serve(forward("task-claim"));
