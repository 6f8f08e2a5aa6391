// tensors.mjs MODEL_DIR QUERN FILE.gguf...: the hub's reader finds in every file what `quern inspect` says is there.
import {execFileSync} from "node:child_process";
import {gguf, GGMLQuantizationType} from "@huggingface/gguf";
import {finish} from "./report.mjs";

const [, quern, ...files] = process.argv.slice(2);
const failures = [];

// Both readers' views, as plain values: shapes innermost first, offsets from the start of the tensor data.
function oursOf(file) {
  const json = execFileSync(quern, ["inspect", file, "--json", "--tensors"], {encoding: "utf8", maxBuffer: 1 << 30});
  const report = JSON.parse(json);
  const metadata = Object.fromEntries(report.metadata.map(({key, value}) => [key, value]));
  const tensors = report.tensors.map(({name, type, shape, offset}) => ({
    name, type, shape: shape.toReversed(), offset: offset - report.files[0].data_offset}));
  return {metadata, tensors, version: report.version};
}

async function theirsOf(file) {
  const {metadata, tensorInfos} = await gguf(file, {allowLocalFile: true});
  const {version, tensor_count: nTensors, kv_count: nKeys, ...entries} = metadata;
  const tensors = tensorInfos.map(({name, dtype, shape, offset}) => ({
    name, type: GGMLQuantizationType[dtype], shape: shape.map(Number), offset: Number(offset)}));
  if (Number(nTensors) !== tensors.length || Number(nKeys) !== Object.keys(entries).length) failures.push(`${file}: counts disagree with the header`);
  return {metadata: entries, tensors, version};
}

const plain = (value) => JSON.stringify(value, (_, v) => (typeof v === "bigint" ? Number(v) : v));

// `quern inspect` prints of an array how long it is and how it begins. Floats are f32 in the file; one reader prints the shortest
// decimal that is the same f32, the other its exact value.
function sameValue(ours, theirs) {
  if (Array.isArray(theirs)) {
    return ours?.count === theirs.length && ours.first.length > 0 && ours.first.every((value, i) => sameValue(value, theirs[i]));
  }
  if (typeof ours === "number" && typeof theirs === "number") return ours === theirs || Math.fround(ours) === Math.fround(theirs);
  return plain(ours) === plain(theirs);
}

for (const file of files) {
  const [ours, theirs] = [oursOf(file), await theirsOf(file)];
  if (ours.version !== theirs.version) failures.push(`${file}: version ${ours.version}, the hub's reader has ${theirs.version}`);
  for (const key of new Set([...Object.keys(ours.metadata), ...Object.keys(theirs.metadata)])) {
    if (!sameValue(ours.metadata[key], theirs.metadata[key])) {
      failures.push(`${file}: ${key} is ${plain(ours.metadata[key])?.slice(0, 80)}, the hub's reader has ${plain(theirs.metadata[key])?.slice(0, 80)}`);
    }
  }
  if (ours.tensors.length !== theirs.tensors.length) failures.push(`${file}: ${ours.tensors.length} tensors, the hub's reader has ${theirs.tensors.length}`);
  ours.tensors.forEach((tensor, i) => {
    if (plain(tensor) !== plain(theirs.tensors[i])) failures.push(`${file}: ${plain(tensor)}, the hub's reader has ${plain(theirs.tensors[i])}`);
  });
  console.log(`${ours.tensors.length} tensors, ${Object.keys(ours.metadata).length} keys: ${file}`);
}
finish(failures, files);
