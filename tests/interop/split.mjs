// split.mjs MODEL_DIR FOLDER: llama.cpp loads a split set whose first file has no tensors, and files whose metadata were edited, and
// computes the same from both; the hub's reader finds the new values.
import {readdirSync} from "node:fs";
import {join} from "node:path";
import {gguf} from "@huggingface/gguf";
import {readGoldens, perplexity} from "./goldens.mjs";
import {openLlama, scoreChunks} from "./llama.mjs";
import {finish} from "./report.mjs";

const [modelDir, folder] = process.argv.slice(2);
const chunks = readGoldens(modelDir).chunks.slice(0, 1);
const ggufs = (name) => readdirSync(join(folder, name)).filter((file) => file.endsWith(".gguf")).sort().map((file) => join(folder, name, file));
const [whole] = ggufs("whole");
const shards = ggufs("shards");
const failures = [];

for (const file of [whole, shards[0]]) {
  const {metadata, tensorInfos} = await gguf(file, {allowLocalFile: true});
  if (metadata["general.name"] !== "Edited") failures.push(`${file}: general.name is ${metadata["general.name"]}`);
  if (!metadata["tokenizer.chat_template"].startsWith("{{ 'edited: '")) failures.push(`${file}: has the old chat template`);
  if (file !== whole && tensorInfos.length !== 0) failures.push(`${file}: the first shard has ${tensorInfos.length} tensors`);
}
if (shards.length < 3) failures.push(`${shards.length} shards are too few to test with`);

const llama = await openLlama();
const measured = [];
for (const file of [whole, shards[0]]) {
  const model = await llama.loadModel({modelPath: file, gpuLayers: 0});
  if (model.fileInfo.metadata.general.name !== "Edited") failures.push(`${file}: llama.cpp reads the name ${model.fileInfo.metadata.general.name}`);
  measured.push(perplexity((await scoreChunks(model, chunks)).flat()));
  await model.dispose();
}
console.log(`one file ${measured[0]}, ${shards.length} shards ${measured[1]}`);
if (measured[0] !== measured[1]) failures.push(`one file gives the perplexity ${measured[0]}, its shards ${measured[1]}`);
finish(failures, [whole, ...shards]);
