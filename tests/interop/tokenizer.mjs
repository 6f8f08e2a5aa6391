// tokenizer.mjs MODEL_DIR FILE.gguf...: llama.cpp, with the tokenizer that the file carries, gives the golden ids and reads them back.
import {readGoldens} from "./goldens.mjs";
import {openLlama} from "./llama.mjs";
import {finish} from "./report.mjs";

const [modelDir, ...files] = process.argv.slice(2);
const {probe} = readGoldens(modelDir);
const llama = await openLlama();
const failures = [];
for (const file of files) {
  const model = await llama.loadModel({modelPath: file, gpuLayers: 0, vocabOnly: true});
  const ids = Array.from(model.tokenize(probe.text, false));
  const differs = probe.ids.findIndex((id, i) => ids[i] !== id);
  if (differs >= 0 || ids.length !== probe.ids.length) {
    failures.push(`${file}: ${ids.length} ids for ${probe.ids.length}, the first difference at ${differs}: ${ids[differs]}, golden ${probe.ids[differs]}`);
  }
  const text = model.detokenize(probe.ids);
  if (text.trim() !== probe.text.trim()) failures.push(`${file}: the golden ids read back as ${JSON.stringify(text)}`);
  await model.dispose();
}
finish(failures, files);
