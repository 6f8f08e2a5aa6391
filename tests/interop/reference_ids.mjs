// reference_ids.mjs ENCODER PACKAGE VOCAB_SIZE GIVEN...: ids of the tokenizer in npm package PACKAGE on more than a megabyte of mixed
// text that begins with the files GIVEN, by the package's own implementation and by ENCODER (encode_with_folder.cc).
import {execFileSync} from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import {TokenizerLoader} from "@lenml/tokenizers";
import {mixedText} from "./mixed_text.mjs";
import {finish} from "./report.mjs";

const [encoder, packageName, vocabSize, ...given] = process.argv.slice(2);
const folder = path.resolve("node_modules", packageName, "models");
const readJson = name => JSON.parse(fs.readFileSync(path.join(folder, name), "utf8"));
const tokenizer = TokenizerLoader.fromPreTrained({tokenizerJSON: readJson("tokenizer.json"), tokenizerConfig: readJson("tokenizer_config.json")});

const text = mixedText(given.map(file => fs.readFileSync(file, "utf8")).join("\n"), 1.2e6, 88172645463325252n);
const work = fs.mkdtempSync(path.join(process.cwd(), "reference-ids-"));
process.on("exit", () => fs.rmSync(work, {recursive: true, force: true}));
const textFile = path.join(work, "text.txt");
fs.writeFileSync(textFile, text);

const expected = tokenizer.encode(text, {add_special_tokens: false});
const found = execFileSync(encoder, [folder, vocabSize, textFile], {maxBuffer: 1 << 28, encoding: "utf8"}).trimEnd().split("\n").map(Number);
const failures = [];
const differs = expected.findIndex((id, i) => found[i] !== id);
if (differs >= 0 || found.length !== expected.length) {
  const around = ids => JSON.stringify(tokenizer.decode(ids.slice(Math.max(0, differs - 3), differs + 4)));
  failures.push(`${packageName}: ${found.length} ids for ${expected.length}, the first difference at ${differs}: ` +
                `${found[differs]} in ${around(found)}, expected ${expected[differs]} in ${around(expected)}`);
}
console.log(`${packageName}: ${Buffer.byteLength(text)} bytes, ${expected.length} ids`);
finish(failures, [packageName]);
