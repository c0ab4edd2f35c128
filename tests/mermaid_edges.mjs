// Reads a JSON list of Mermaid texts from standard input and prints what Mermaid's own parser makes of each:
// its edges and the classes of its states, or the error. The argument is a node_modules folder.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const load = (...parts) => import(pathToFileURL(join(process.argv[2], ...parts)));

// Mermaid cleans labels with DOMPurify, which needs a browser. Parsing does not.
const { default: DOMPurify } = await load("dompurify", "dist", "purify.es.mjs");
DOMPurify.addHook = () => {};
DOMPurify.sanitize = (text) => text;
const { default: mermaid } = await load("mermaid", "dist", "mermaid.core.mjs");

const results = [];
for (const text of JSON.parse(readFileSync(0, "utf8"))) {
  try {
    await mermaid.parse(text);
    const { db } = await mermaid.mermaidAPI.getDiagramFromText(text);
    const states = [...db.getStates().values()];
    results.push({
      edges: db.getRelations().map((edge) => [edge.id1, edge.relationTitle ?? "", edge.id2]),
      marked: states.filter((state) => state.classes?.some((name) => name.endsWith("_now"))).map((state) => state.id),
    });
  } catch (error) {
    results.push({ error: String(error.message) });
  }
}
process.stdout.write(JSON.stringify(results));
