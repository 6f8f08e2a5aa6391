#include "formats/checkpoint/checkpoint_source.h"

#include <algorithm>

#include "formats/arch/stems.h"
#include "formats/base/counted.h"
#include "formats/base/name_pattern.h"
#include "formats/base/resources.h"
#include "formats/checkpoint/causes.h"

// A rule names the weights that a GGUF tensor is made of, their encoding the companions that those need, and both are claimed. What is
// left over has no purpose that we know: a model that loads without it would compute something else, so that every such tensor is an
// error, together with all that is missing or misshapen. Only what the rules of the architecture ignore by name may stay behind.

namespace quern {

using checkpoint::Assembly;
using safetensors::StoredTensor;

namespace {

bool same_bytes(const safetensors::Checkpoint& checkpoint, const StoredTensor& a, const StoredTensor& b) {
  if (a.dtype != b.dtype || a.shape != b.shape) return false;
  constexpr uint64_t kPieceBytes = 1 << 20;
  std::vector<std::byte> piece_a;
  std::vector<std::byte> piece_b;
  for (uint64_t at = 0; at < a.size_bytes; at += piece_a.size()) {
    piece_a.resize(std::min(kPieceBytes, a.size_bytes - at));
    piece_b.resize(piece_a.size());
    checkpoint.read(a, at, piece_a);
    checkpoint.read(b, at, piece_b);
    if (piece_a != piece_b) return false;
  }
  return true;
}

// The expert axis of a stack; other tensors of rank 3 are heads of one matrix.
int64_t count_slices(const TensorRule& rule) {
  const bool heads = rule.transform == Transform::kSplitKeyB || rule.transform == Transform::kSplitValueB;
  return rule.shape.rank() == 3 && !heads ? rule.shape[0] : 1;
}

// A number of experts that no file backs must not become that many names.
bool names_fit(const safetensors::Checkpoint& checkpoint, const TensorRule& rule, Problems& problems) {
  const auto n_stored = static_cast<int64_t>(checkpoint.tensors().size());
  if (rule.stored.find("{e}") == std::string::npos || rule.shape[0] <= n_stored) return true;
  problems.add(ErrorKind::kFormat, "'" + rule.stored + "' stands for " + std::to_string(rule.shape[0]) +
                                       " experts, but the checkpoint has only " + std::to_string(n_stored) + " tensors");
  return false;
}

// transformers gives the output matrix the values of the embedding then, whatever was stored.
std::string why_repeated(const TensorRule& rule) {
  return rule.name == "output.weight" ? " as tie_word_embeddings in config.json is true" : "";
}

std::vector<SourceFile> list_files(const safetensors::Checkpoint& checkpoint) {
  std::vector<SourceFile> files;
  for (const InputFile& file : checkpoint.files()) {
    files.push_back({file.path(), file.path().filename().string(), file.size_bytes(), file.mtime_ns()});
  }
  return files;
}

}  // namespace

// Which stored tensors have a rule.
class CheckpointSource::Claims {
 public:
  explicit Claims(const safetensors::Checkpoint& checkpoint)
      : checkpoint_(checkpoint), claimed_(checkpoint.tensors().size()), unfit_(checkpoint.tensors().size()) {}

  // Whether it had no rule before.
  bool add(const StoredTensor* tensor) {
    if (tensor == nullptr) return false;
    const bool is_new = !claimed_[number_of(*tensor)];
    claimed_[number_of(*tensor)] = true;
    return is_new;
  }
  void add(const TensorRule& rule) {
    for (const std::string& name : checkpoint::stored_names(rule)) add(checkpoint_.find(name));
  }
  void add_planes(const Assembly& assembly) {
    for (const encodings::EncodedTensor& part : assembly.parts) {
      for (const encodings::Plane& plane : part.planes()) add(plane.tensor);
      for (const StoredTensor* tensor : part.dropped) n_dropped_ += add(tensor) ? 1 : 0;
    }
  }
  int64_t n_dropped() const noexcept { return n_dropped_; }

  // A rule could not be applied to its tensors. What belongs to them is then neither claimed nor without use.
  void add_unfit(const TensorRule& rule) {
    for (const std::string& name : checkpoint::stored_names(rule)) {
      if (const StoredTensor* tensor = checkpoint_.find(name)) unfit_[number_of(*tensor)] = true;
    }
  }

  bool has(const StoredTensor& tensor) const { return claimed_[number_of(tensor)]; }

  void report_rest(const ArchRules& rules, Problems& problems) const {
    for (size_t i = 0; i < claimed_.size(); ++i) {
      const std::string& name = checkpoint_.tensors()[i].name;
      if (!claimed_[i] && !is_ignored(rules, name)) report(name, problems);
    }
  }

 private:
  // The scale of an ignored tensor is ignored with it.
  static bool is_ignored(const ArchRules& rules, std::string_view name) {
    const std::vector<std::string> weights = encodings::weights_of(name);
    return std::ranges::any_of(rules.ignored, [&](const std::string& pattern) {
      return matches_pattern(pattern, name) ||
             std::ranges::any_of(weights, [&](const std::string& one) { return matches_pattern(pattern, one); });
    });
  }

  const StoredTensor* find_weights_of(std::string_view companion) const {
    for (const std::string& name : encodings::weights_of(companion)) {
      if (const StoredTensor* weights = checkpoint_.find(name)) return weights;
    }
    return nullptr;
  }

  size_t number_of(const StoredTensor& tensor) const { return static_cast<size_t>(&tensor - checkpoint_.tensors().data()); }

  void report(const std::string& name, Problems& problems) const {
    const StoredTensor* weights = find_weights_of(name);
    if (weights != nullptr && unfit_[number_of(*weights)]) return;
    const std::string_view foreign = encodings::foreign_encoding(name);
    if (!foreign.empty()) {
      return problems.add_unclaimed(ErrorKind::kUnsupported,
                                    in_quotes(name) + " belongs to an encoding that is not supported: " + std::string(foreign));
    }
    if (weights == nullptr) return problems.add_unclaimed(ErrorKind::kFormat, "no rule claims the stored tensor " + in_quotes(name));
    if (has(*weights))
      problems.add_unclaimed(ErrorKind::kFormat, in_quotes(name) + " is a scale without use: its weights are not FP8 or FP4");
  }

  const safetensors::Checkpoint& checkpoint_;
  std::vector<bool> claimed_;
  std::vector<bool> unfit_;
  int64_t n_dropped_ = 0;
};

CheckpointSource::CheckpointSource(safetensors::Checkpoint checkpoint, const ArchRules& rules, const ModelConfig& config, Metadata metadata,
                                   std::vector<std::string> notes, std::span<const std::string> skip)
    : checkpoint_(std::move(checkpoint)), metadata_(std::move(metadata)), notes_(std::move(notes)), files_(list_files(checkpoint_)) {
  notes_.insert(notes_.end(), checkpoint_.notes().begin(), checkpoint_.notes().end());
  notes_.insert(notes_.end(), rules.notes.begin(), rules.notes.end());
  Problems problems;
  Claims claims(checkpoint_);
  apply(rules, config, claims, problems);
  leave_out(skip, claims);
  claims.report_rest(rules, problems);
  if (claims.n_dropped() > 0) {
    notes_.push_back(std::to_string(claims.n_dropped()) + " scales of activations are left out: they say nothing about the weights");
  }
  if (!problems.empty()) checkpoint::throw_cause(checkpoint_, rules, config);
  problems.throw_if_any();
  uint64_t size_bytes = 0;
  for (const SourceFile& file : files_) size_bytes += file.size_bytes;
  drop_behind_ = size_bytes > available_memory_bytes() / 2;
}

void CheckpointSource::apply(const ArchRules& rules, const ModelConfig& config, Claims& claims, Problems& problems) {
  for (const TensorRule& rule : rules.rules) {
    if (!names_fit(checkpoint_, rule, problems)) continue;
    claims.add(rule);
    if (is_duplicate(rule)) continue;
    std::optional<Assembly> assembly = checkpoint::assemble(checkpoint_, config, rule, problems);
    if (!assembly) {
      claims.add_unfit(rule);
      continue;
    }
    claims.add_planes(*assembly);
    add_tensor(rule, std::move(*assembly));
  }
}

// Claimed only after the last expression: two may find the same tensor.
void CheckpointSource::leave_out(std::span<const std::string> skip, Claims& claims) {
  std::vector<const StoredTensor*> skipped;
  for (const std::string& expression : skip) {
    const NamePattern pattern(expression);
    std::vector<const StoredTensor*> found;
    for (const StoredTensor& tensor : checkpoint_.tensors()) {
      if (!pattern.found_in(tensor.name)) continue;
      if (claims.has(tensor)) {
        throw Error(ErrorKind::kUsage,
                    "--skip '" + printable(expression) + "' would leave out " + in_quotes(tensor.name) + ", which the model needs");
      }
      found.push_back(&tensor);
    }
    if (found.empty()) throw Error(ErrorKind::kUsage, "--skip '" + printable(expression) + "' finds no stored tensor");
    notes_.push_back("--skip '" + printable(expression) + "' leaves out " + counted(found.size(), "stored tensor") + ": " +
                     in_quotes(found.front()->name) + (found.size() > 1 ? " to " + in_quotes(found.back()->name) : ""));
    skipped.insert(skipped.end(), found.begin(), found.end());
  }
  for (const StoredTensor* tensor : skipped) claims.add(tensor);
}

bool CheckpointSource::is_duplicate(const TensorRule& rule) {
  if (rule.drop_if_equal_to.empty()) return false;
  const StoredTensor* own = checkpoint_.find(rule.stored);
  const StoredTensor* other = checkpoint_.find(rule.drop_if_equal_to);
  if (own == nullptr || other == nullptr) return false;
  const bool equal = same_bytes(checkpoint_, *own, *other);
  notes_.push_back(in_quotes(rule.stored) + (equal ? " repeats " : " differs from ") + in_quotes(rule.drop_if_equal_to) +
                   (equal ? " byte for byte and is left out" : ", which it should repeat" + why_repeated(rule) + "; it is kept"));
  return equal;
}

void CheckpointSource::add_tensor(const TensorRule& rule, Assembly assembly) {
  LogicalTensor tensor;
  tensor.name = rule.name;
  tensor.shape = rule.shape;
  tensor.role = rule.role;
  tensor.keep = rule.keep;
  tensor.layer = rule.layer;
  tensor.n_slices = count_slices(rule);
  tensor.row_alignment = checkpoint::row_alignment(assembly);
  tensor.source_type = checkpoint::source_type(assembly);
  tensor.source_bytes = checkpoint::source_bytes(assembly);
  for (const encodings::EncodedTensor& part : assembly.parts) tensor.source_names.push_back(part.codes().tensor->name);
  tensors_.push_back(std::move(tensor));
  assemblies_.push_back(std::move(assembly));
}

Exactness CheckpointSource::exactness(size_t tensor) const { return checkpoint::exactness(checkpoint_, assemblies_.at(tensor)); }

uint64_t CheckpointSource::raw_bytes(size_t tensor, int64_t n_rows) const { return checkpoint::raw_bytes(assemblies_.at(tensor), n_rows); }

void CheckpointSource::fetch(size_t tensor, int64_t first_row, int64_t n_rows, RawRows& raw) const {
  QUERN_CHECK(first_row >= 0 && n_rows >= 0 && first_row + n_rows <= tensors_.at(tensor).shape.n_rows());
  raw.tensor = tensor;
  raw.first_row = first_row;
  raw.n_rows = n_rows;
  bytes_read_ += checkpoint::fetch_rows(checkpoint_, assemblies_[tensor], drop_behind_, raw);
}

void CheckpointSource::decode(const RawRows& raw, std::span<float> out) const {
  try {
    checkpoint::decode_rows(assemblies_.at(raw.tensor), raw, out);
  } catch (Error& e) {
    e.tensor(tensors_[raw.tensor].name);
    throw;
  }
}

bool CheckpointSource::can_copy(size_t tensor, DType type) const { return checkpoint::can_copy(checkpoint_, assemblies_.at(tensor), type); }

void CheckpointSource::copy(const RawRows& raw, DType type, std::span<std::byte> out) const {
  try {
    checkpoint::copy_rows(assemblies_.at(raw.tensor), raw, type, out);
  } catch (Error& e) {
    e.tensor(tensors_[raw.tensor].name);
    throw;
  }
}

}  // namespace quern
