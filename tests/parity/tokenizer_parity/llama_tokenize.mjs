// Tokenizes lines with llama.cpp through node-llama-cpp.
//   node llama_tokenize.mjs NODE_DIR GGUF plain|control < lines
// Each input line is a JSON string; each output line is a JSON array of ids,
// without a begin-of-sequence token. "control" turns the texts of control
// tokens into those tokens.
import {createInterface} from "node:readline";
import path from "node:path";
import {pathToFileURL} from "node:url";

const [nodeDir, gguf, mode] = process.argv.slice(2);
const entry = path.resolve(nodeDir, "node_modules/node-llama-cpp/dist/index.js");
const {getLlama} = await import(pathToFileURL(entry).href);
const llama = await getLlama({gpu: false, build: "never", logLevel: "error"});
const model = await llama.loadModel({modelPath: gguf, vocabOnly: true});
const out = [];
for await (const line of createInterface({input: process.stdin})) {
  const ids = model.tokenize(JSON.parse(line), mode === "control");
  out.push(JSON.stringify(Array.from(ids)));
}
await new Promise((done) => process.stdout.write(out.join("\n") + "\n", done));
process.exit(0);
