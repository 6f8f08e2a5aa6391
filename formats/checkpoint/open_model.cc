#include <algorithm>
#include <set>

#include "formats/arch/config.h"
#include "formats/arch/general_keys.h"
#include "formats/arch/stored_names.h"
#include "formats/base/model_folder.h"
#include "formats/checkpoint/checkpoint_source.h"
#include "formats/checkpoint/gguf_source.h"
#include "formats/checkpoint/outline_source.h"
#include "formats/encodings/registry.h"
#include "formats/gguf/gguf_folder.h"
#include "formats/model/model_documents.h"
#include "formats/model/model_outline.h"
#include "formats/model/skip.h"
#include "formats/tokenizer/import.h"
#include "formats/tokenizer/tokenizer_files.h"

// A checkpoint folder as a model, step by step: config, architecture, names in the headers, rules, metadata.

namespace quern {
namespace {

namespace fs = std::filesystem;

// The model that an adapter was trained on, as PEFT records it: " of 'meta-llama/Llama-3.1-8B'", or nothing.
std::string base_of_adapter(const ModelFolder& folder) {
  constexpr uint64_t kMaxBytes = uint64_t{8} << 20;
  const ModelConfig config = ModelConfig::parse(folder.read_text("adapter_config.json", kMaxBytes));
  const std::string base = config.find_string("base_model_name_or_path").value_or("");
  return base.empty() ? std::string() : " of '" + printable(base) + "'";
}

// A folder with an adapter alone: what PEFT saves, with or without a copy of the model's config.json.
void refuse_adapter(const ModelFolder& folder) {
  if (!folder.has("adapter_config.json")) return;
  for (const std::string& name : folder.names()) {
    if (name.ends_with(".safetensors") && !name.starts_with("adapter")) return;
  }
  throw Error(ErrorKind::kUnsupported, "the folder has adapter_config.json and no model: it is an adapter" + base_of_adapter(folder) +
                                           "; merge it into that model (merge_and_unload of PEFT), save the result and convert that");
}

// A folder above the one that was meant: a trainer's checkpoint-500, a snapshot of the Hub's cache.
void refuse_folder_above(const ModelFolder& folder) {
  for (const std::string& name : folder.names()) {
    if (name != "snapshots" && !ModelFolder(folder.path() / name).has("config.json")) continue;
    std::string inner = name;
    if (const auto snapshots = folder.names(name); name == "snapshots" && !snapshots.empty()) inner += "/" + snapshots.front();
    throw Error(ErrorKind::kUsage, "the folder has no config.json, but '" + printable(inner) + "' in it may be a model: name that folder");
  }
}

// Folders that hold a model in a form that is not safetensors with a config.json.
void refuse_other_layouts(const ModelFolder& folder) {
  if (folder.has("hf_quant_config.json")) {
    throw Error(ErrorKind::kUnsupported,
                "hf_quant_config.json says this is an NVIDIA ModelOpt checkpoint; one of this model in BF16 or FP8 can be converted if "
                "there is one");
  }
  refuse_adapter(folder);
  if (folder.has("config.json")) return;
  if (folder.has("model_index.json")) {
    throw Error(ErrorKind::kUnsupported, "the folder has model_index.json: it is a pipeline of diffusers, not a language model");
  }
  if (folder.has("params.json")) {
    throw Error(ErrorKind::kUnsupported, "the folder has params.json but no config.json: convert the transformers layout of this model");
  }
  refuse_folder_above(folder);
  if (first_name(folder, ".safetensors").empty()) gguf::refuse_folder(folder);
}

// The ids of config.json, then those of generation_config.json that it lacks.
std::vector<int64_t> token_ids(const ModelConfig& config, const std::string& key) {
  std::vector<int64_t> ids = config.find_token_ids(key);
  for (const int64_t id : config.find_token_ids("generation_config." + key)) {
    if (std::ranges::find(ids, id) == ids.end()) ids.push_back(id);
  }
  return ids;
}

TokenizerInputs tokenizer_inputs(const ModelConfig& config, const ArchDescriptor& arch, const ModelOptions& options) {
  const auto first_id = [&](const char* key) {
    const std::vector<int64_t> ids = token_ids(config, key);
    return ids.empty() ? std::nullopt : std::optional(ids.front());
  };
  return {.vocab_size = config.get_count("vocab_size"),
          .gguf_arch = arch.gguf_arch,
          .bos_token_id = first_id("bos_token_id"),
          .eos_token_id = first_id("eos_token_id"),
          .pad_token_id = first_id("pad_token_id"),
          .unk_token_id = first_id("unk_token_id"),
          .end_ids = token_ids(config, "eos_token_id"),
          .chat_template = options.chat_template};
}

// Everything that a checkpoint says beside its tensors.
struct Description {
  ModelConfig config;
  const ArchDescriptor* arch;
  ModelFolder folder;  // the last component of its path names the model where nothing else does
};

Description describe(ModelConfig config, const ModelFolder& folder) {
  Description description{std::move(config), nullptr, folder};
  description.arch = &find_arch(description.config);
  description.arch->check(description.config);
  encodings::refuse_unknown_method(description.config);
  return description;
}

Metadata metadata_of(const Description& model, const ArchRules& rules, const ModelOptions& options, bool with_tokenizer,
                     std::vector<std::string>& notes) {
  Metadata metadata;
  notes.insert(notes.end(), model.config.notes().begin(), model.config.notes().end());
  set_general_keys(model.folder, model.config, *model.arch, rules, options, metadata, notes);
  model.arch->set_metadata(model.config, options.mtp, metadata);
  if (with_tokenizer) set_tokenizer_metadata(model.folder, tokenizer_inputs(model.config, *model.arch, options), metadata, notes);
  return metadata;
}

// What makes the stored names those of the architecture, told in `notes`.
std::optional<NameChange> name_change(const Description& model, const std::vector<std::string>& stored, std::vector<std::string>& notes) {
  const ArchRules expected = model.arch->rules(model.config, false, [](std::string_view) { return false; });
  std::optional<NameChange> change = find_name_change(stored, expected);
  if (change) notes.push_back(change->describe());
  return change;
}

void rename_tensors(const Description& model, safetensors::Checkpoint& checkpoint, std::vector<std::string>& notes) {
  std::vector<std::string> stored;
  for (const safetensors::StoredTensor& tensor : checkpoint.tensors()) stored.push_back(tensor.name);
  if (const std::optional<NameChange> change = name_change(model, stored, notes)) checkpoint.rename(*change);
}

// Everything that is read of a checkpoint folder when it is opened.
struct Contents {
  safetensors::Checkpoint checkpoint;
  ArchRules rules;
  Metadata metadata;
  std::vector<std::string> notes;
};

Contents read_contents(const Description& model, const ModelOptions& options, bool with_tokenizer) {
  encodings::check_config(model.config);
  Contents contents{safetensors::Checkpoint(model.folder), {}, {}, {}};
  rename_tensors(model, contents.checkpoint, contents.notes);
  const HasTensor has_tensor = [&](std::string_view name) { return encodings::is_stored(contents.checkpoint, model.config, name); };
  contents.rules = model.arch->rules(model.config, options.mtp, has_tensor);
  contents.metadata = metadata_of(model, contents.rules, options, with_tokenizer, contents.notes);
  return contents;
}

std::unique_ptr<ModelSource> open_checkpoint(const Description& model, const ModelOptions& options, std::span<const std::string> skip,
                                             bool with_tokenizer) {
  Contents contents = read_contents(model, options, with_tokenizer);
  return std::make_unique<CheckpointSource>(std::move(contents.checkpoint), contents.rules, model.config, std::move(contents.metadata),
                                            std::move(contents.notes), skip);
}

// Names of the tensors that the index of absent shards lists.
std::set<std::string, std::less<>> indexed_names(const Description& model, std::vector<std::string>& notes) {
  using safetensors::kIndexName, safetensors::kMaxIndexBytes;
  if (!model.folder.has(kIndexName)) return {};
  std::vector<std::string> names;
  for (auto& entry : safetensors::parse_index(model.folder.read(kIndexName, kMaxIndexBytes)).entries) {
    names.push_back(std::move(entry.tensor));
  }
  if (const std::optional<NameChange> change = name_change(model, names, notes)) {
    for (std::string& name : names) name = (*change)(name);
  }
  return {names.begin(), names.end()};
}

std::unique_ptr<ModelSource> outline_of_config(const Description& model, const ModelOptions& options, bool with_tokenizer) {
  std::vector<std::string> notes;
  const auto names = indexed_names(model, notes);
  const ArchRules rules =
      model.arch->rules(model.config, options.mtp, [&](std::string_view name) { return names.find(name) != names.end(); });
  Metadata metadata = metadata_of(model, rules, options, with_tokenizer, notes);
  notes.push_back("no header of a tensor file was read: the stored types are those that config.json states");
  return std::make_unique<OutlineSource>(model.config, rules, std::move(metadata), std::move(notes));
}

bool has_shards(const ModelFolder& folder) {
  return std::ranges::any_of(folder.names(), [](const std::string& name) { return name.ends_with(".safetensors"); });
}

ModelOutline outline_of_folder(const ModelFolder& folder, const ModelOptions& options, std::span<const std::string> skip) {
  refuse_other_layouts(folder);
  const Description model = describe(load_config(folder), folder);
  const bool with_tokenizer = has_tokenizer(folder);
  const bool with_headers = has_shards(folder);
  return {with_headers ? open_checkpoint(model, options, skip, with_tokenizer) : outline_of_config(model, options, with_tokenizer),
          with_headers, with_tokenizer};
}

// A config.json under its own name stands for its folder, weights excepted, which may not be there yet.
ModelOutline outline_without_weights(const ModelFolder& folder, const ModelOptions& options) {
  const bool with_tokenizer = has_tokenizer(folder);
  return {outline_of_config(describe(load_config(folder), folder), options, with_tokenizer), false, with_tokenizer};
}

// The name of the file stands for that of the folder, unless it is the usual one.
ModelOutline outline_of_file(const fs::path& path, const ModelOptions& options) {
  if (path.filename() == "config.json") return outline_without_weights(fs::absolute(path).parent_path(), options);
  constexpr uint64_t kMaxConfigBytes = uint64_t{8} << 20;
  const std::string text = ModelFolder(path.parent_path()).read_text(path.filename().string(), kMaxConfigBytes);
  return {outline_of_config(describe(ModelConfig::parse(text), fs::path(path).replace_extension()), options, false), false, false};
}

// A file of a checkpoint where its folder was meant.
void refuse_checkpoint_file(const fs::path& path) {
  if (path.extension() != ".safetensors" && path.extension() != ".json") return;
  throw Error(ErrorKind::kUsage, "is a file of a checkpoint; name its folder").file(path.string());
}

}  // namespace

std::unique_ptr<ModelSource> open_model(const fs::path& path, const ModelOptions& options) { return open_model(path, options, {}); }

std::unique_ptr<ModelSource> open_model(const fs::path& path, const ModelOptions& options, std::span<const std::string> skip) {
  if (fs::is_directory(path)) {
    try {
      refuse_other_layouts(path);
      return open_checkpoint(describe(load_config(path), path), options, skip, true);
    } catch (Error& e) {
      e.file(path.string());
      throw;
    }
  }
  refuse_checkpoint_file(path);
  if (!skip.empty())
    throw Error(ErrorKind::kUsage, "--skip is for checkpoints, a GGUF file has only tensors of its model").file(path.string());
  return std::make_unique<GgufSource>(gguf::File(path));
}

std::vector<SourceFile> documents_of(const fs::path& path) {
  if (!fs::is_directory(path)) return {};
  ModelFolder folder(path);
  folder.remember();
  const Contents contents = read_contents(describe(load_config(folder), folder), {}, true);
  std::set<fs::path> with_tensors;
  for (const InputFile& file : contents.checkpoint.files()) with_tensors.insert(file.path());
  std::vector<SourceFile> documents;
  for (const std::string& name : folder.opened()) {
    const InputFile file(folder.path() / name);
    if (!with_tensors.contains(file.path())) documents.push_back({file.path(), name, file.size_bytes(), file.mtime_ns()});
  }
  return documents;
}

ModelOutline open_outline(const fs::path& path, const ModelOptions& options, std::span<const std::string> skip) {
  try {
    if (fs::is_directory(path)) return outline_of_folder(path, options, skip);
    if (path.extension() == ".json") return outline_of_file(path, options);
  } catch (Error& e) {
    e.file(path.string());
    throw;
  }
  std::unique_ptr<ModelSource> source = open_model(path, options, skip);
  const bool has_tokenizer = source->metadata().find("tokenizer.ggml.tokens") != nullptr;
  return {std::move(source), true, has_tokenizer};
}

}  // namespace quern
