// Reads the goldens beside a model: goldens.json and the .npy arrays that these tests need.
import fs from "node:fs";
import path from "node:path";

// A little-endian, C-ordered .npy array as {shape, values}; values is a typed array.
function readNpy(file) {
  const bytes = fs.readFileSync(file);
  const headerEnd = 10 + bytes.readUInt16LE(8);
  const header = bytes.toString("latin1", 10, headerEnd);
  const type = {"<i4": Int32Array, "<f4": Float32Array}[/'descr': '([^']+)'/.exec(header)[1]];
  const shape = /'shape': \(([^)]*)\)/.exec(header)[1].split(",").filter((s) => s.trim() !== "").map(Number);
  return {shape, values: new type(bytes.buffer.slice(bytes.byteOffset + headerEnd, bytes.byteOffset + bytes.length))};
}

// {context, vocabularySize, chunks: token ids per chunk, logprobs: per chunk, of token t + 1 given tokens 0..t, probe: {text, ids}}
export function readGoldens(modelDir) {
  const folder = path.join(modelDir, "goldens");
  const tokens = readNpy(path.join(folder, "tokens.npy"));
  const logprobs = readNpy(path.join(folder, "logprobs.npy"));
  const [count, context] = tokens.shape;
  const rows = (array, width) => Array.from({length: count}, (_, i) => Array.from(array.values.subarray(i * width, (i + 1) * width)));
  const readJson = (file) => JSON.parse(fs.readFileSync(file, "utf8"));
  const {vocab_size: vocabularySize} = readJson(path.join(modelDir, "config.json"));
  const probe = readJson(path.join(folder, "goldens.json")).tokenizer_probe;
  return {context, vocabularySize, chunks: rows(tokens, context), logprobs: rows(logprobs, context - 1), probe};
}

// llama-perplexity's number: only the second half of each chunk is scored, where every token has some context.
export function secondHalf(context) {
  return {first: context / 2, end: context - 1};
}

export function perplexity(logprobs) {
  return Math.exp(-logprobs.reduce((sum, value) => sum + value, 0) / logprobs.length);
}
