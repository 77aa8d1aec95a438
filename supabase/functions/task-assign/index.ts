// task-assign: see functions/task-assign/main.py.
import { forward } from "../_shared/forward.ts";

Deno.serve(forward("task-assign"));
