#include "formats/arch/config.h"
#include "formats/arch/general_keys.h"
#include "formats/checkpoint/checkpoint_source.h"
#include "formats/checkpoint/gguf_source.h"
#include "formats/tokenizer/import.h"

// A checkpoint folder as a model, step by step: config, architecture, names in the headers, rules, metadata.

namespace quern {
namespace {

namespace fs = std::filesystem;

// Folders that hold a model in a form that is not safetensors with a config.json.
void refuse_other_layouts(const fs::path& folder) {
  if (fs::exists(folder / "hf_quant_config.json")) {
    throw Error(ErrorKind::kUnsupported, "hf_quant_config.json says this is an NVIDIA ModelOpt checkpoint; convert the original one");
  }
  if (fs::exists(folder / "config.json")) return;
  if (fs::exists(folder / "params.json")) {
    throw Error(ErrorKind::kUnsupported, "the folder has params.json but no config.json: convert the transformers layout of this model");
  }
  for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
    if (entry.path().extension() != ".gguf") continue;
    throw Error(ErrorKind::kUsage,
                "the folder has no config.json; name a GGUF file in it, for example " + entry.path().filename().string());
  }
}

std::optional<int64_t> find_token_id(const ModelConfig& config, std::string_view key) {
  if (config.has_list(key)) return std::nullopt;  // several end-of-text ids
  return config.find_int(key, 0, std::numeric_limits<int32_t>::max());
}

TokenizerInputs tokenizer_inputs(const ModelConfig& config, const ArchDescriptor& arch, const ModelOptions& options) {
  return {.vocab_size = config.get_count("vocab_size"),
          .gguf_arch = arch.gguf_arch,
          .bos_token_id = find_token_id(config, "bos_token_id"),
          .eos_token_id = find_token_id(config, "eos_token_id"),
          .pad_token_id = find_token_id(config, "pad_token_id"),
          .unk_token_id = find_token_id(config, "unk_token_id"),
          .chat_template = options.chat_template};
}

std::unique_ptr<ModelSource> open_checkpoint(const fs::path& folder, const ModelOptions& options) {
  refuse_other_layouts(folder);
  const ModelConfig config = load_config(folder);
  const ArchDescriptor& arch = find_arch(config);
  arch.check(config);
  const checkpoint::QuantizationConfig quantization = checkpoint::read_quantization_config(config);

  safetensors::Checkpoint checkpoint(folder);
  const HasTensor has_tensor = [&](std::string_view name) { return checkpoint.find(name) != nullptr; };
  const ArchRules rules = arch.rules(config, options.mtp, has_tensor);

  Metadata metadata;
  std::vector<std::string> notes;
  set_general_keys(folder, config, arch, rules, options, metadata);
  arch.set_metadata(config, options.mtp, metadata);
  set_tokenizer_metadata(folder, tokenizer_inputs(config, arch, options), metadata, notes);
  return std::make_unique<CheckpointSource>(std::move(checkpoint), rules, quantization, std::move(metadata), std::move(notes));
}

// A file of a checkpoint where its folder was meant.
void refuse_checkpoint_file(const fs::path& path) {
  if (path.extension() != ".safetensors" && path.extension() != ".json") return;
  throw Error(ErrorKind::kUsage, "is a file of a checkpoint; name its folder").file(path.string());
}

}  // namespace

std::unique_ptr<ModelSource> open_model(const fs::path& path, const ModelOptions& options) {
  if (fs::is_directory(path)) {
    try {
      return open_checkpoint(path, options);
    } catch (Error& e) {
      e.file(path.string());
      throw;
    }
  }
  refuse_checkpoint_file(path);
  return std::make_unique<GgufSource>(gguf::File(path));
}

}  // namespace quern
