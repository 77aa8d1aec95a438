// A `?` in an object's name. Storage takes it, but lite's router undoes no `%3F`; so a private character stands for it
// between the address and lite's statements, where this plugin puts it back.
import { OperationNodeTransformer } from "kysely";
import { requestContext } from "./objects.mjs";

const MARK = "\uf03f";
export const marked = (text) => text.replaceAll("?", MARK);
export const unmarked = (text) => text.replaceAll(MARK, "?");

class Unmarking extends OperationNodeTransformer {
  transformValue(node) {
    const value = super.transformValue(node);
    return typeof value.value === "string" ? { ...value, value: unmarked(value.value) } : value;
  }

  transformPrimitiveValueList(node) {
    const list = super.transformPrimitiveValueList(node);
    return { ...list, values: list.values.map((value) => (typeof value === "string" ? unmarked(value) : value)) };
  }
}

const unmarking = new Unmarking();

export const questionMarks = {
  transformQuery: ({ node }) => (requestContext.getStore()?.marked ? unmarking.transformNode(node) : node),
  transformResult: async ({ result }) => result,
};
