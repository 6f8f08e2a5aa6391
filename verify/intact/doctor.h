#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "formats/base/progress.h"
#include "formats/gguf/gguf.h"
#include "verify/intact/symptom.h"

namespace quern {

// Looks at a model that anybody made and says what is suspicious, in words for the person who wants to run it.

struct Diagnosis {
  std::vector<Symptom> symptoms;  // gravest first
  size_t n_files = 0;
  size_t n_tensors = 0;
  uint64_t bytes_read = 0;

  bool broken() const;
};

// path: a GGUF file (of a split set any shard, which stands for all), a safetensors file, a checkpoint folder, or a folder of GGUF files
// as publish makes them.
// Reads everything once. Throws when there is nothing at `path` that could be looked at.
Diagnosis examine(const std::filesystem::path& path, Progress& progress);

// The parts of it that need no weights. tensors: of all files of the model; empty when they are not known, and nothing is compared then.
void examine_metadata(const Metadata& metadata, std::span<const TensorInfo> tensors, const std::string& where,
                      std::vector<Symptom>& symptoms);
// What examine_metadata would find in a GGUF file (of a split model the first) with its metadata edited and does not find in it now, and
// warnings for keys that are added and that nothing reads. header: of the file.
std::vector<Symptom> symptoms_of_edit(const std::filesystem::path& file, const gguf::Header& header, const Metadata& edited);
// Code in a chat template that a template has no reason to have: attributes that lead out of the sandbox, imports, web addresses,
// invisible characters, long encoded text.
void examine_template(std::string_view text, const std::string& where, std::vector<Symptom>& symptoms);

// "broken", "warning", "note".
const char* name_of(Severity severity);
// "quern.doctor/1", with a newline.
std::string diagnosis_to_json(const Diagnosis& diagnosis);

}  // namespace quern
