// Continues prompts greedily with llama.cpp through node-llama-cpp.
//   node llama_greedy.mjs NODE_DIR GGUF TOKENS [ADAPTER.gguf] < prompts
// Each input line is a JSON array of token ids; each output line is a JSON
// array of at most TOKENS ids, which ends before an end-of-generation token.
import {createInterface} from "node:readline";
import path from "node:path";
import {pathToFileURL} from "node:url";

const [nodeDir, gguf, tokens, adapter] = process.argv.slice(2);
const entry = path.resolve(nodeDir, "node_modules/node-llama-cpp/dist/index.js");
const {getLlama} = await import(pathToFileURL(entry).href);
const llama = await getLlama({gpu: false, build: "never", logLevel: "error"});
const model = await llama.loadModel({modelPath: gguf});
const out = [];
for await (const line of createInterface({input: process.stdin})) {
  // A new context for each prompt: no state is carried over.
  const context = await model.createContext({
    contextSize: 512,
    // Its threads spin at barriers: more of them than free cores crawl.
    threads: 1,
    ...(adapter ? {lora: {adapters: [{filePath: adapter}]}} : {}),
  });
  const sequence = context.getSequence();
  const ids = [];
  for await (const id of sequence.evaluate(JSON.parse(line), {
    temperature: 0,
    yieldEogToken: false,
  })) {
    ids.push(id);
    if (ids.length >= Number(tokens)) break;
  }
  out.push(JSON.stringify(ids));
  await context.dispose();
}
await new Promise((done) => process.stdout.write(out.join("\n") + "\n", done));
process.exit(0);
