#include "verify/intact/doctor.h"

#include <algorithm>
#include <array>
#include <map>
#include <set>

#include "formats/arch/descriptor.h"
#include "formats/arch/key_reader.h"
#include "formats/arch/stems.h"
#include "formats/base/checked.h"
#include "formats/base/counted.h"
#include "formats/base/error.h"
#include "formats/base/file.h"
#include "formats/base/model_folder.h"
#include "formats/gguf/gguf_folder.h"
#include "formats/gguf/gguf_survey.h"
#include "formats/gguf/shards.h"
#include "formats/model/model_source.h"
#include "formats/safetensors/safetensors.h"
#include "formats/types/foreign_types.h"
#include "verify/intact/doctor_parts.h"
#include "verify/intact/file_scan.h"

// A broken file seldom has one fault only, so every step is an attempt: what it throws becomes a symptom, and the next step goes on with
// what is known. Headers are read by a survey that notes broken rules instead of stopping at the first. Then all bytes are read once, which
// finds scales that are not numbers and, by the hashes, tensors that are copies of one another. Mistakes of ours and interrupts are no
// symptoms and pass through.
//
// The files of a split model are looked at one by one, so that what is wrong with one is said of that one and hides nothing of the others.
//
// Metadata is judged by a class of its own, which needs headers and no weights. It asks for what llama.cpp would refuse the file without,
// reads the hyperparameters as the runtime would, and compares the counts that must agree: tokens, rows of the embedding, blocks, experts.
// Keys may have any type there, so it never trusts one. Because it needs no weights it can also judge metadata that is not written yet: an
// edit is bad when the same examination finds more behind it than before it.

namespace quern {
namespace fs = std::filesystem;
namespace {

constexpr size_t kShown = 12;  // symptoms of one sentence per file

class Examination {
 public:
  explicit Examination(Progress& progress) : progress_(progress) {}

  Diagnosis run(const fs::path& path) {
    if (fs::is_directory(path)) {
      folder(path);
    } else if (path.extension() == ".safetensors") {
      begin(path);
      safetensors_file(path);
    } else {
      gguf_set(path);
    }
    progress_.end();
    std::ranges::stable_sort(result_.symptoms, {}, &Symptom::severity);
    return std::move(result_);
  }

 private:
  // Steps that build on one another find the same fault; it is named once, as gravely as it was found first.
  void add(Severity severity, const std::string& where, const std::string& message) {
    const auto known = [&](const Symptom& symptom) { return symptom.where == where && symptom.message == message; };
    if (std::ranges::none_of(result_.symptoms, known)) result_.symptoms.push_back({severity, where, message});
  }

  // Runs a step; what it throws is a symptom.
  template <typename Step>
  void attempt(const std::string& where, const Step& step) {
    try {
      step();
    } catch (const Error& error) {
      if (error.kind() == ErrorKind::kInternal || error.kind() == ErrorKind::kInterrupted) throw;
      add(Severity::kBroken, where, error.message());
    }
  }

  void begin(const fs::path& path) {
    std::error_code ignored;
    progress_.begin("looking", fs::file_size(path, ignored));
  }

  // --- GGUF ---

  void gguf_set(const fs::path& shard) {
    const fs::path path = first_of(shard);
    begin(path);
    const std::optional<gguf::Header> header = gguf_file(path);
    if (!header) return;
    std::vector<TensorInfo> tensors = tensors_of(*header);
    const bool complete = other_shards(path, header->metadata, tensors);
    if (!complete) tensors.clear();
    examine_metadata(header->metadata, tensors, path.filename().string(), result_.symptoms);
  }

  // The first file of the set that the path is a shard of; the path itself when it is none, or cannot be read.
  static fs::path first_of(const fs::path& path) {
    try {
      return gguf::first_shard(path, gguf::read_header(InputFile(path), gguf::ForeignTypes::kList).metadata);
    } catch (const Error&) {
      return path;
    }
  }

  // Names and shapes, those of types that we do not know too.
  static std::vector<TensorInfo> tensors_of(const gguf::Header& header) {
    std::vector<TensorInfo> tensors = header.tensors;
    for (const gguf::ForeignTensor& foreign : header.foreign) tensors.push_back({foreign.name, DType::F32, foreign.shape});
    return tensors;
  }

  // Looks at the other files of a split model and adds their tensors. False when not all of them could be read.
  bool other_shards(const fs::path& first, const Metadata& metadata, std::vector<TensorInfo>& tensors) {
    const std::string where = first.filename().string();
    std::vector<std::string> names;
    try {
      names = gguf::shard_names(first, metadata);
    } catch (const Error& error) {
      add(error.kind() == ErrorKind::kUsage ? Severity::kNote : Severity::kBroken, where, error.message());
      return false;
    }
    if (names.size() == 1) return true;
    bool complete = true;
    attempt(where, [&] { require_files(first.parent_path(), names); });
    for (size_t i = 1; i < names.size(); ++i) {
      std::optional<gguf::Header> shard;
      if (fs::exists(first.parent_path() / names[i])) shard = gguf_file(first.parent_path() / names[i]);
      complete = complete && shard;
      if (!shard) continue;
      const std::vector<TensorInfo> more = tensors_of(*shard);
      tensors.insert(tensors.end(), more.begin(), more.end());
    }
    if (complete && !result_.broken())
      attempt(where, [&] { gguf::File set(first, gguf::ForeignTypes::kList); });  // whether they belong together
    return complete;
  }

  std::optional<gguf::Header> gguf_file(const fs::path& path) {
    const std::string where = path.filename().string();
    std::optional<gguf::Header> header;
    ++result_.n_files;
    attempt(where, [&] {
      const InputFile file(path);
      std::vector<std::string> problems;
      header = gguf::survey_header(file, problems);
      cut_short(*header, file, where, problems);
      for (size_t i = 0; i < std::min(problems.size(), kShown); ++i) add(Severity::kBroken, where, problems[i]);
      if (problems.size() > kShown)
        add(Severity::kBroken, where, "and " + std::to_string(problems.size() - kShown) + " more rules of the format broken");
      foreign_types(*header, where);
      layout(*header, file, where);
      scan(file, header->tensors, where);
    });
    if (header) result_.n_tensors += header->tensors.size() + header->foreign.size();
    return header;
  }

  // One sentence for a download that stopped: every tensor behind its end breaks the same rule, and no other rule is broken.
  void cut_short(const gguf::Header& header, const InputFile& file, const std::string& where, std::vector<std::string>& problems) {
    const auto of_size = [](const std::string& problem) {
      return problem.find("data ends at byte") != std::string::npos || problem.find("its header asks for") != std::string::npos;
    };
    if (header.tensors.empty() || !std::ranges::all_of(problems, of_size)) return;
    const uint64_t end = header.tensors.back().file_offset + header.tensors.back().size_bytes;
    if (file.size_bytes() >= end) return;
    add(Severity::kBroken, where,
        "incomplete download: " + std::to_string(file.size_bytes()) + " of " + std::to_string(align_up(end, header.alignment)) +
            " bytes; fetch it again");
    problems.clear();
  }

  void foreign_types(const gguf::Header& header, const std::string& where) {
    std::map<int32_t, size_t> counts;
    for (const gguf::ForeignTensor& tensor : header.foreign) ++counts[tensor.type_id];
    for (const auto& [type, count] : counts)
      add(Severity::kBroken, where,
          counted(count, "tensor") + " cannot be looked at and llama.cpp refuses the file: " + why_not_read(type));
  }

  // Holes and overlaps in words; the survey has named the offsets.
  void layout(const gguf::Header& header, const InputFile& file, const std::string& where) {
    struct Place {
      std::string_view name;
      uint64_t begin, end;
    };
    std::vector<Place> order;
    for (const TensorInfo& t : header.tensors) order.push_back({t.name, t.file_offset, t.file_offset + t.size_bytes});
    for (const gguf::ForeignTensor& t : header.foreign) order.push_back({t.name, t.file_offset, t.file_offset + t.size_bytes});
    std::ranges::stable_sort(order, {}, &Place::begin);
    uint64_t hole_bytes = 0;
    for (size_t i = 0; i + 1 < order.size(); ++i) {
      const uint64_t end = align_up(order[i].end, header.alignment), next = order[i + 1].begin;
      if (next < order[i].end) {
        add(Severity::kBroken, where,
            "tensors '" + printable(order[i].name) + "' and '" + printable(order[i + 1].name) +
                "' overlap: both are read from the same bytes");
      } else if (next > end) {
        hole_bytes += next - end;
      }
    }
    if (hole_bytes > 0)
      add(Severity::kWarning, where,
          std::to_string(hole_bytes) + " bytes between tensors belong to none: something is hidden or was cut out");
    const uint64_t end = order.empty() ? header.data_offset : align_up(order.back().end, header.alignment);
    if (file.size_bytes() > end)
      add(Severity::kWarning, where, std::to_string(file.size_bytes() - end) + " bytes after the last tensor belong to none");
  }

  void scan(const InputFile& file, const std::vector<TensorInfo>& tensors, const std::string& where) {
    std::vector<TensorInfo> order(tensors);
    std::ranges::stable_sort(order, {}, &TensorInfo::file_offset);
    std::vector<ScanRange> ranges;
    std::vector<std::string> names, zero;
    std::vector<bool> may_be_zero;  // a vector, or no weights by its type
    uint64_t last_end = 0;
    for (const TensorInfo& tensor : order) {
      if (tensor.file_offset < last_end) continue;  // overlaps; reported
      ranges.push_back({tensor.file_offset, tensor.size_bytes, 1, tensor.dtype});
      names.push_back(tensor.name);
      may_be_zero.push_back(tensor.shape.rank() < 2 || is_table(tensor.dtype));
      last_end = tensor.file_offset + tensor.size_bytes;
    }
    const FileScan found = scan_file(file, ranges, progress_);
    result_.bytes_read += file.size_bytes();
    std::map<std::string, std::string> seen;
    for (size_t i = 0; i < ranges.size(); ++i) {
      if (found.ranges[i].nonfinite_at) {
        add(Severity::kBroken, where,
            "tensor '" + printable(names[i]) + "': a scale or weight is NaN or infinite at byte " +
                std::to_string(*found.ranges[i].nonfinite_at) + "; one is enough to make all output nonsense");
      }
      if (found.ranges[i].zero && !found.ranges[i].sha256.empty()) {
        if (!may_be_zero[i]) zero.push_back(names[i]);
        continue;
      }
      if (found.ranges[i].sha256.empty() || ranges[i].size_bytes < 4096) continue;
      const auto [other, inserted] = seen.try_emplace(found.ranges[i].sha256, names[i]);
      if (!inserted)
        add(Severity::kWarning, where,
            "tensors '" + printable(other->second) + "' and '" + printable(names[i]) +
                "' have the same bytes: a copying mistake, or tied on purpose");
    }
    zero_matrices(zero, where);
  }

  // What a damaged cache or a download of the right size leaves. Matrices that only add to the state of the model may be zero on purpose.
  void zero_matrices(const std::vector<std::string>& names, const std::string& where) {
    std::vector<std::string> adding, others;
    for (const std::string& name : names) (only_adds(name) ? adding : others).push_back(name);
    if (!others.empty())
      add(Severity::kBroken, where,
          "every weight is zero in " + list_tensors(others) + ": damaged, or a download that never arrived; fetch the file again");
    if (!adding.empty())
      add(Severity::kWarning, where,
          "every weight is zero in " + list_tensors(adding) +
              ": damaged, unless it is an expert that was cut off or a layer that was added without training");
  }

  static std::string list_tensors(const std::vector<std::string>& names) {
    std::string text = counted(names.size(), "tensor") + ", '" + printable(names.front()) + "'";
    for (size_t i = 1; i < std::min<size_t>(names.size(), 3); ++i) text += ", '" + printable(names[i]) + "'";
    return names.size() > 3 ? text + " ..." : text;
  }

  static bool is_table(DType type) {
    constexpr std::array kTables = {DType::I16, DType::I32, DType::I64, DType::U16, DType::U32, DType::U64, DType::BOOL, DType::F8_E8M0};
    return std::ranges::find(kTables, type) != kTables.end();
  }

  static bool only_adds(std::string_view name) {
    constexpr std::array<std::string_view, 20> kPieces = {
        "o_proj", "down_proj", "out_proj", "c_proj", "attn_output", "ffn_down", ".wo.",  ".w2.",       "dense_4h_to_h", "attention.dense",
        "lora_",  "expert",    "_exps",    "router", "position",    "pos_emb",  "altup", "token_type", "scale",         "zero"};
    return std::ranges::any_of(kPieces, [=](std::string_view piece) { return name.find(piece) != std::string_view::npos; });
  }

  // --- checkpoints ---

  void folder(const fs::path& path) {
    std::vector<fs::path> weights;
    for (const fs::directory_entry& entry : fs::directory_iterator(path)) {
      const std::string name = entry.path().filename().string(), extension = entry.path().extension().string();
      if (extension == ".safetensors") weights.push_back(entry.path());
      if (extension == ".bin" || extension == ".pt" || extension == ".pth" || extension == ".pkl" || extension == ".ckpt") {
        add(Severity::kWarning, name, "may be a pickle, which runs code when it is loaded; the safetensors files do not");
      }
      if (extension == ".py") add(Severity::kWarning, name, "Python code that programs run when they are told to trust remote code");
    }
    std::ranges::sort(weights);
    if (weights.empty()) return gguf_models(path);
    uint64_t total = 0;
    std::error_code ignored;
    for (const fs::path& file : weights) total += fs::file_size(file, ignored);
    progress_.begin("looking", total);
    for (const fs::path& file : weights) safetensors_file(file);
    config(path);
    attempt("", [&] { weights_of_model(path); });
    attempt("", [&] { model(path); });
  }

  // Every build of a published folder.
  void gguf_models(const fs::path& path) {
    const std::vector<std::string> models = gguf::models_in(path);
    try {
      if (models.empty()) gguf::refuse_folder(path);
    } catch (Error& error) {
      throw error.file(path.string());
    }
    for (const std::string& model : models) gguf_set(path / model);
  }

  // What lies beside the weights of the model may be what somebody meant.
  void weights_of_model(const fs::path& path) {
    const safetensors::Checkpoint checkpoint(path);
    for (const std::string& note : checkpoint.notes()) add(Severity::kWarning, "", note);
  }

  void model(const fs::path& path) {
    const std::unique_ptr<ModelSource> source = open_model(path);
    for (const std::string& note : source->notes()) add(Severity::kNote, "", note);
    for (const auto& [key, value] : source->metadata().entries()) {
      const auto* chat = std::get_if<std::string>(&value);
      if (chat != nullptr && key.starts_with("tokenizer.chat_template")) examine_template(*chat, key, result_.symptoms);
    }
  }

  void config(const fs::path& path) {
    const fs::path file = path / "config.json";
    if (!fs::exists(file)) return add(Severity::kBroken, "config.json", "is missing: nothing says what model this is");
    const std::string text = read_text_file(file, uint64_t{8} << 20);
    if (text.find("\"auto_map\"") != std::string::npos) {
      add(Severity::kWarning, "config.json", "has an auto_map: programs that trust remote code run Python files of the repository");
    }
  }

  void safetensors_file(const fs::path& path) {
    const std::string where = path.filename().string();
    ++result_.n_files;
    attempt(where, [&] {
      const InputFile file(path);
      const safetensors::Header header = safetensors::read_header(file);
      result_.n_tensors += header.tensors.size();
      scan(file, header.tensors, where);
    });
  }

  Progress& progress_;
  Diagnosis result_;
};

// Keys without which llama.cpp refuses a model of any architecture, and what each is for.
struct NeededKey {
  const char* key;  // "{arch}" stands for the architecture
  const char* what;
};
constexpr NeededKey kNeededKeys[] = {
    {"{arch}.block_count", "the number of layers"},        {"{arch}.context_length", "the context it was trained for"},
    {"{arch}.embedding_length", "the width of the model"}, {"{arch}.attention.head_count", "the number of heads"},
    {"tokenizer.ggml.model", "the kind of tokenizer"},     {"tokenizer.ggml.tokens", "the vocabulary"}};

class MetadataExamination {
 public:
  MetadataExamination(const Metadata& metadata, std::span<const TensorInfo> tensors, std::string where, std::vector<Symptom>& symptoms)
      : metadata_(metadata), tensors_(tensors), where_(std::move(where)), symptoms_(symptoms) {}

  void run() {
    const auto* arch = std::get_if<std::string>(find("general.architecture"));
    if (int_of("split.no").value_or(0) != 0) return;  // the first shard has the keys
    examine_keys(metadata_, where_, symptoms_);
    if (const auto* type = std::get_if<std::string>(find("general.type")); type != nullptr && *type != "model") {
      return add(Severity::kNote, "is no model by itself: general.type is '" + printable(*type) + "'");
    }
    if (arch == nullptr) return add(Severity::kBroken, "key 'general.architecture' is missing: no program can tell what model this is");
    needed_keys(*arch);
    known_architecture(*arch);
    examine_vocabulary(metadata_, where_, symptoms_);
    embedding(*arch);
    types();
    blocks(*arch);
    experts(*arch);
    templates();
  }

 private:
  void add(Severity severity, const std::string& message) { symptoms_.push_back({severity, where_, message}); }

  const MetaValue* find(std::string_view key) const {
    static const MetaValue none = uint8_t{0};
    const MetaValue* value = metadata_.find(key);
    return value == nullptr ? &none : value;
  }

  std::optional<int64_t> int_of(const std::string& key) const {
    try {
      return metadata_.find_int(key);
    } catch (const Error&) {
      return std::nullopt;
    }
  }

  void needed_keys(const std::string& arch) {
    for (const NeededKey& needed : kNeededKeys) {
      std::string key = needed.key;
      if (const size_t at = key.find("{arch}"); at == 0) key = arch + key.substr(6);
      if (metadata_.find(key) == nullptr)
        add(Severity::kBroken, "key '" + key + "' (" + needed.what + ") is missing; llama.cpp refuses the file");
    }
  }

  void known_architecture(const std::string& arch) {
    const auto archs = all_archs();
    if (std::ranges::none_of(archs, [&](const ArchDescriptor& known) { return known.gguf_arch == arch; })) {
      return add(Severity::kNote, "architecture '" + printable(arch) + "' is not one that quern knows; its own keys were not checked");
    }
    try {
      read_hparams(metadata_);
    } catch (const Error& error) {
      if (error.kind() == ErrorKind::kInternal) throw;
      add(Severity::kBroken, error.message());
    }
  }

  const TensorInfo* find_tensor(std::string_view name) const {
    const auto found = std::ranges::find(tensors_, name, &TensorInfo::name);
    return found == tensors_.end() ? nullptr : &*found;
  }

  // The tables that are as long as the vocabulary, and the width of the model.
  void embedding(const std::string& arch) {
    const auto* tokens = std::get_if<std::vector<std::string>>(find("tokenizer.ggml.tokens"));
    const std::optional<int64_t> n_vocab = int_of(arch + ".vocab_size"), width = int_of(arch + ".embedding_length");
    for (const char* name : {"token_embd.weight", "output.weight"}) {
      const TensorInfo* tensor = find_tensor(name);
      if (tensor == nullptr || tensor->shape.rank() != 2) continue;
      const int64_t rows = tensor->shape[0], columns = tensor->shape[1];
      const std::string has = std::string(name) + " has " + std::to_string(rows) + " rows, ";
      if (tokens != nullptr && rows != std::ssize(*tokens))
        add(Severity::kBroken, has + "the vocabulary " + std::to_string(tokens->size()) + " tokens");
      if (n_vocab && rows != *n_vocab) add(Severity::kBroken, has + arch + ".vocab_size is " + std::to_string(*n_vocab));
      if (width && columns != *width)
        add(Severity::kBroken,
            std::string(name) + " is " + std::to_string(columns) + " wide, " + arch + ".embedding_length is " + std::to_string(*width));
    }
  }

  void types() {
    bool quantized = false;
    for (const TensorInfo& tensor : tensors_) quantized = quantized || traits(tensor.dtype).block_weights > 1;
    if (quantized && metadata_.find("general.quantization_version") == nullptr) {
      add(Severity::kWarning,
          "general.quantization_version is missing, though tensors are quantized: the file is older than the format of its blocks");
    }
  }

  void blocks(const std::string& arch) {
    const std::optional<int64_t> count = int_of(arch + ".block_count");
    if (!count || tensors_.empty()) return;
    std::set<int64_t> present, normed;
    for (const TensorInfo& tensor : tensors_) {
      const auto [layer, name] = split_block_name(tensor.name);
      if (layer < 0) continue;
      present.insert(layer);
      if (name == "attn_norm.weight") normed.insert(layer);
    }
    if (present.empty()) return;  // blocks have other names
    const std::string says = "block_count is " + std::to_string(*count) + ", but ";
    for (int64_t block = 0; block < std::min<int64_t>(*count, 1 << 16); ++block) {
      if (present.contains(block)) continue;
      return add(Severity::kBroken, says + "there is no tensor of block " + std::to_string(block));
    }
    if (*present.rbegin() >= *count)
      add(Severity::kBroken, says + "there are tensors of block " + std::to_string(*present.rbegin()) + ", which llama.cpp refuses");
    const auto bare = std::ranges::find_if(present, [&](int64_t block) { return !normed.contains(block); });
    if (!normed.empty() && bare != present.end())
      add(Severity::kBroken, "block " + std::to_string(*bare) + " has no attn_norm.weight, which other blocks have");
  }

  // Stacks of experts and their number.
  void experts(const std::string& arch) {
    if (tensors_.empty()) return;
    const int64_t count = int_of(arch + ".expert_count").value_or(0);
    const std::string says = arch + ".expert_count is " + std::to_string(count) + ", but ";
    bool stacked = false;
    for (const TensorInfo& tensor : tensors_) {
      const std::string_view name = split_block_name(tensor.name).name;
      if (name != "ffn_down_exps.weight" || tensor.shape.rank() != 3) continue;
      stacked = true;
      if (tensor.shape[0] == count) continue;
      return add(Severity::kBroken, says + "'" + tensor.name + "' has " + std::to_string(tensor.shape[0]) + " experts");
    }
    if (count > 0 && !stacked) add(Severity::kBroken, says + "no tensor holds a stack of experts");
  }

  // The one that is used by default, and those with a name.
  void templates() {
    constexpr std::string_view kKey = "tokenizer.chat_template";
    for (const auto& [key, value] : metadata_.entries()) {
      const auto* text = std::get_if<std::string>(&value);
      if (text != nullptr && key.starts_with(kKey)) examine_template(*text, where_.empty() ? key : where_ + ", " + key, symptoms_);
    }
    if (metadata_.find(kKey) == nullptr) add(Severity::kNote, "there is no chat template: programs guess how to talk to it");
  }

  const Metadata& metadata_;
  const std::span<const TensorInfo> tensors_;
  const std::string where_;
  std::vector<Symptom>& symptoms_;
};

// The tensors of a model by the headers of its files; none when one cannot be read.
std::vector<TensorInfo> tensors_of(const fs::path& file, const gguf::Header& header) {
  std::vector<TensorInfo> tensors = header.tensors;
  try {
    const std::vector<std::string> names = gguf::shard_names(file, header.metadata);
    for (size_t i = 1; i < names.size(); ++i) {
      const gguf::Header shard = gguf::read_header(InputFile(file.parent_path() / names[i]));
      tensors.insert(tensors.end(), shard.tensors.begin(), shard.tensors.end());
    }
    return tensors;
  } catch (const Error& error) {
    if (error.kind() == ErrorKind::kInternal) throw;
    return {};
  }
}

}  // namespace

bool Diagnosis::broken() const {
  return std::ranges::any_of(symptoms, [](const Symptom& s) { return s.severity == Severity::kBroken; });
}

Diagnosis examine(const fs::path& path, Progress& progress) {
  if (!fs::exists(path)) throw Error(ErrorKind::kIo, "no such file or folder").file(path.string());
  return Examination(progress).run(path);
}

void examine_metadata(const Metadata& metadata, std::span<const TensorInfo> tensors, const std::string& where,
                      std::vector<Symptom>& symptoms) {
  MetadataExamination(metadata, tensors, where, symptoms).run();
}

std::vector<Symptom> symptoms_of_edit(const fs::path& file, const gguf::Header& header, const Metadata& edited) {
  const std::vector<TensorInfo> tensors = tensors_of(file, header);
  std::vector<Symptom> before, after;
  examine_metadata(header.metadata, tensors, "", before);
  examine_metadata(edited, tensors, "", after);
  const auto same = [](const Symptom& a, const Symptom& b) {
    return a.severity == b.severity && a.where == b.where && a.message == b.message;
  };
  std::erase_if(after, [&](const Symptom& a) { return std::ranges::any_of(before, [&](const Symptom& b) { return same(a, b); }); });
  for (const Metadata::Entry& entry : edited.entries()) {
    if (header.metadata.find(entry.first) != nullptr) continue;
    if (const std::string odd = unread_key(header.metadata, entry.first); !odd.empty())
      after.push_back({Severity::kWarning, "'" + printable(entry.first) + "'", odd});
  }
  return after;
}

}  // namespace quern
