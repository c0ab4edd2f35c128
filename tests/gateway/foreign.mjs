// A client of the SDK for TypeScript that does what it is told: lines of JSON in, lines of JSON out.
//
//   node foreign.mjs MODULES sdk|client legacy|auto URL
//   node foreign.mjs MODULES sdk|client legacy|auto COMMAND ARGUMENT...
//
// `sdk` is the first form of the SDK, which knows no era but the legacy one; `client` is the present one.

import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const [modules, form, mode, ...target] = process.argv.slice(2);
const require = createRequire(`${modules}/from-here.js`);
const first = form === "sdk";
const at = (path) => require(first ? `@modelcontextprotocol/sdk/${path}` : "@modelcontextprotocol/client");
const { Client } = at("client/index.js");
const { StreamableHTTPClientTransport } = at("client/streamableHttp.js");
const { StdioClientTransport } = require(first ? "@modelcontextprotocol/sdk/client/stdio.js" : "@modelcontextprotocol/client/stdio");

const capabilities = { elicitation: { form: {} }, sampling: {}, roots: {} };
const client = new Client({ name: "foreign", version: "1" }, { capabilities, versionNegotiation: { mode } });
const answers = {
  "elicitation/create": () => ({ action: "accept", content: { colour: "ts" } }),
  "sampling/createMessage": () => ({ role: "assistant", model: "m", content: { type: "text", text: "said ts" } }),
  "roots/list": () => ({ roots: [{ uri: "file:///ts" }] }),
};
const schemas = first && at("types.js");
const asked = first && {
  "elicitation/create": schemas.ElicitRequestSchema,
  "sampling/createMessage": schemas.CreateMessageRequestSchema,
  "roots/list": schemas.ListRootsRequestSchema,
};
for (const [method, answer] of Object.entries(answers)) {
  client.setRequestHandler(first ? asked[method] : method, async () => answer());
}

const over = target[0].startsWith("http")
  ? new StreamableHTTPClientTransport(new URL(target[0]))
  : new StdioClientTransport({ command: target[0], args: target.slice(1), env: process.env, stderr: "ignore" });

async function every(list, member) {
  const found = [];
  let cursor;
  do {
    const page = await list(cursor ? { cursor } : {});
    found.push(...page[member]);
    cursor = page.nextCursor;
  } while (cursor);
  return found;
}

async function call(params) {
  const progress = [];
  const options = { onprogress: ({ progress: done, total, message }) => progress.push([done, total, message]) };
  const result = first
    ? await client.callTool(params, undefined, options)
    : await client.callTool(params, options);
  return { result, progress };
}

const acts = {
  connect: async () => {
    await client.connect(over);
    return { instructions: client.getInstructions(), server: client.getServerVersion().name };
  },
  tools: () => every((params) => client.listTools(params), "tools"),
  resources: () => every((params) => client.listResources(params), "resources"),
  prompts: () => every((params) => client.listPrompts(params), "prompts"),
  call,
  read: (params) => client.readResource(params),
  prompt: (params) => client.getPrompt(params),
  complete: (params) => client.complete(params),
  close: () => client.close(),
};

for await (const line of createInterface({ input: process.stdin })) {
  const [act, params] = JSON.parse(line);
  let answer;
  try {
    answer = { answer: (await acts[act](params)) ?? null };
  } catch (error) {
    answer = { error: `${error?.stack ?? error}` };
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
  if (act === "close") process.exit(0);
}
