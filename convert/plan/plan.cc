#include "convert/plan/plan.h"

#include <algorithm>
#include <numeric>
#include <set>

#include "convert/plan/calibration.h"
#include "convert/plan/naming.h"
#include "convert/plan/plan_checks.h"
#include "convert/plan/plan_types.h"
#include "formats/base/checked.h"
#include "formats/base/resources.h"
#include "formats/base/sha256.h"
#include "formats/base/version.h"
#include "formats/gguf/gguf.h"
#include "formats/gguf/gguf_edit.h"
#include "quantize/plain/encode.h"
#include "recipes/name_pattern.h"

namespace quern {
namespace {

// Enough weights for one chunk to hide what a chunk costs apart from its weights, few enough that chunks stay in a cache near the
// core and that all threads have one.
constexpr int64_t kChunkWeights = int64_t{1} << 20;
// Share of the budget that the chunks of a plan may take each, so that at least this many are in work.
constexpr uint64_t kLeastChunks = 4;
// Resident memory of what is neither headers nor chunks: the process itself, thread stacks, hash states, allocator slack.
constexpr uint64_t kProcessBytes = uint64_t{32} << 20;

std::vector<PlannedTensor> select_tensors(const ModelSource& source, const PlanOptions& options, std::vector<Problem>& problems) {
  std::optional<NamePattern> pattern;
  if (options.tensors) pattern.emplace(*options.tensors);
  std::vector<PlannedTensor> selected;
  for (size_t i = 0; i < source.tensors().size(); ++i) {
    const LogicalTensor& tensor = source.tensors()[i];
    if (pattern && !pattern->found_in(tensor.name)) continue;
    PlannedTensor planned;
    planned.name = tensor.name;
    planned.shape = tensor.shape;
    planned.source_index = i;
    planned.n_slices = tensor.n_slices;
    planned.source_bytes = tensor.source_bytes;
    planned.integer = tensor.keep == Keep::kInteger;
    selected.push_back(std::move(planned));
  }
  if (selected.empty()) {
    problems.push_back({ErrorKind::kUsage, pattern ? "--tensors matches none of the model's tensors" : "the model has no tensors"});
  }
  return selected;
}

void set_output_metadata(const Plan& plan, const WantedOutput& wanted, const PlanOptions& options, PlannedOutput& output) {
  output.metadata.set("general.quantization_version", uint32_t{2});  // GGML_QNT_VERSION
  set_recipe_keys(plan, wanted, output);
  if (options.tensors) output.metadata.set("quern.partial", *options.tensors);
  std::set<DType> encoded;
  for (const Placement& placement : output.tensors) {
    if (!placement.copied && traits(placement.type).block_weights > 1 && has_encoder(placement.type)) encoded.insert(placement.type);
  }
  for (const DType type : encoded) {
    output.metadata.set("quern.encoder." + std::string(name_of(type)), static_cast<uint32_t>(encoder_revision(type)));
  }
}

std::vector<TensorInfo> file_tensors(const Plan& plan, const PlannedOutput& output, const PlannedFile& file) {
  std::vector<TensorInfo> infos;
  for (size_t t = file.first_tensor; t < file.first_tensor + file.n_tensors; ++t) {
    const Placement& placement = output.tensors[t];
    infos.push_back({plan.tensors[t].name, placement.type, plan.tensors[t].shape, 0, placement.size_bytes});
  }
  return infos;
}

// Consecutive tensors per file, at most split_bytes of padded data each; a larger tensor has a file of its own.
void divide_into_files(const Plan& plan, const PlanOptions& options, PlannedOutput& output) {
  const uint64_t limit = options.split_bytes == 0 ? UINT64_MAX : options.split_bytes;
  std::vector<PlannedFile> files(1);
  uint64_t in_file = 0;
  for (size_t t = 0; t < plan.tensors.size(); ++t) {
    const uint64_t padded = align_up(output.tensors[t].size_bytes, gguf::kDefaultAlignment);
    if (files.back().n_tensors > 0 && in_file + padded > limit) {
      files.push_back({});
      files.back().first_tensor = t;
      in_file = 0;
    }
    ++files.back().n_tensors;
    in_file += padded;
  }
  if (files.size() > 1 && options.metadata_shard) files.insert(files.begin(), PlannedFile{});
  output.files = std::move(files);
}

void place_tensors(const Plan& plan, PlannedOutput& output) {
  for (size_t f = 0; f < output.files.size(); ++f) {
    PlannedFile& file = output.files[f];
    file.name = output.files.size() == 1
                    ? output.stem + ".gguf"
                    : gguf::split_name(output.stem, static_cast<int64_t>(f), static_cast<int64_t>(output.files.size()));
    file.data_offset = file_header(plan, output, f).size();
    const gguf::Layout layout = gguf::layout(file_tensors(plan, output, file));
    file.size_bytes = file.data_offset + layout.blob_bytes;
    for (size_t i = 0; i < file.n_tensors; ++i) {
      output.tensors[file.first_tensor + i].file = static_cast<uint32_t>(f);
      output.tensors[file.first_tensor + i].file_offset = file.data_offset + layout.offsets[i];
    }
  }
}

PlannedOutput plan_output(const ModelSource& source, const Plan& plan, const WantedOutput& wanted, const std::vector<DType>& types,
                          const PlanOptions& options) {
  PlannedOutput output;
  output.mix = wanted.recipe.name;
  output.lossless = wanted.lossless;
  for (size_t t = 0; t < plan.tensors.size(); ++t) {
    Placement placement;
    placement.type = types[t];
    placement.copied = source.can_copy(plan.tensors[t].source_index, types[t]);
    placement.size_bytes = tensor_size_bytes(types[t], plan.tensors[t].shape);
    output.tensor_bytes += placement.size_bytes;
    output.tensors.push_back(placement);
  }
  set_output_metadata(plan, wanted, options, output);
  if (options.importance != nullptr) set_imatrix_keys(plan, *options.importance, output);
  if (options.feedback != nullptr) set_feedback_keys(plan, *options.feedback, output);
  output.label = wanted.recipe.name;
  if (output.lossless) output.label += "-" + std::string(name_of(dominant_type(plan, output)));
  output.stem = options.single_file ? options.output.stem().string()
                                    : output_stem(plan.metadata, plan.mtp, options.tensors.has_value(), output.label);
  divide_into_files(plan, options, output);
  if (options.folder_per_type && output.files.size() > 1) output.folder = output.label;
  place_tensors(plan, output);
  return output;
}

// Keys of a GGUF source that describe its own file and not the model.
Metadata model_metadata(const Metadata& source) {
  Metadata metadata = source;
  for (const auto& [key, value] : source.entries()) {
    const bool of_the_file = key.starts_with("split.") || key.starts_with("quern.") || key.starts_with("quantize.imatrix.") ||
                             key == "general.alignment" || key == "general.file_type" || key == "general.quantization_version";
    if (of_the_file) metadata.erase(key);
  }
  return metadata;
}

// Memory of a chunk of n_rows: stored bytes, floats, the blocks of every distinct type, and what their encoders take, one after the other.
uint64_t chunk_bytes(const Plan& plan, const ModelSource& source, size_t t, int64_t n_rows) {
  const PlannedTensor& tensor = plan.tensors[t];
  const uint64_t rows = static_cast<uint64_t>(n_rows);
  const uint64_t row_length = static_cast<uint64_t>(tensor.shape.row_length());
  uint64_t bytes = source.raw_bytes(tensor.source_index, n_rows);
  if (!tensor.integer) bytes += checked_mul(checked_mul(rows, row_length, "chunk size"), uint64_t{sizeof(float)}, "chunk size");
  std::set<DType> types;
  for (const PlannedOutput& output : plan.outputs) types.insert(output.tensors[t].type);
  uint64_t encoder = 0;
  for (const DType type : types) {
    bytes += rows * row_size_bytes(type, tensor.shape.row_length());
    encoder = std::max(encoder, encoder_bytes(type));
  }
  return bytes + encoder;
}

// Rows per chunk: about kChunkWeights, whole groups of rows that share stored bytes or are encoded together, and within the memory for
// one chunk. When not even one group fits, fewer rows: then some stored bytes (scales, transposed blocks) are read more than once.
int64_t rows_per_chunk(const Plan& plan, const ModelSource& source, size_t t, uint64_t limit_bytes) {
  const PlannedTensor& tensor = plan.tensors[t];
  const int64_t n_rows = tensor.shape.n_rows();
  const int64_t shared = std::clamp<int64_t>(source.tensors()[tensor.source_index].row_alignment, 1, n_rows);
  const int64_t group = std::min(std::lcm(shared, kRowsEncodedTogether), n_rows);
  const int64_t wanted = std::max<int64_t>(kChunkWeights / std::max<int64_t>(tensor.shape.row_length(), 1), 1);
  int64_t rows = std::min(n_rows, std::max(wanted / group * group, group));
  while (rows > group && chunk_bytes(plan, source, t, rows) > limit_bytes) rows = std::max(rows / 2 / group * group, group);
  while (rows > 1 && chunk_bytes(plan, source, t, rows) > limit_bytes) rows /= 2;
  return rows;
}

uint64_t header_bytes(const Plan& plan) {
  uint64_t bytes = 0;
  for (const PlannedOutput& output : plan.outputs) bytes += output.files.front().data_offset;
  return bytes;
}

void plan_memory(const ModelSource& source, const PlanOptions& options, Plan& plan, std::vector<Problem>& problems) {
  plan.memory_bytes = options.memory_bytes != 0 ? options.memory_bytes : default_memory_budget();
  plan.base_bytes = peak_resident_bytes() + kProcessBytes + 2 * header_bytes(plan);
  if (options.feedback != nullptr) plan.base_bytes += options.feedback->resident_bytes();
  const uint64_t left = plan.memory_bytes > plan.base_bytes ? plan.memory_bytes - plan.base_bytes : 0;
  uint64_t smallest = 0;
  for (size_t t = 0; t < plan.tensors.size(); ++t) {
    PlannedTensor& tensor = plan.tensors[t];
    tensor.chunk_rows = rows_per_chunk(plan, source, t, left / kLeastChunks);
    plan.chunk_bytes = std::max(plan.chunk_bytes, chunk_bytes(plan, source, t, tensor.chunk_rows));
    smallest = std::max(smallest, chunk_bytes(plan, source, t, 1));
  }
  check_memory(plan, plan.base_bytes + kLeastChunks * smallest, problems);
}

std::vector<PlannedSource> plan_sources(const ModelSource& source) {
  std::vector<PlannedSource> sources;
  for (const SourceFile& file : source.files()) sources.push_back({file.name, file.size_bytes, file.mtime_ns, fingerprint(file.path)});
  return sources;
}

// Blocks that become other blocks lose twice.
void note_requantization(const ModelSource& source, Plan& plan) {
  if (std::filesystem::is_directory(plan.model)) return;
  for (const PlannedOutput& output : plan.outputs) {
    std::set<std::string_view> types;
    size_t count = 0;
    for (size_t t = 0; t < plan.tensors.size(); ++t) {
      const DType stored = source.tensors()[plan.tensors[t].source_index].source_type;
      if (output.tensors[t].copied || traits(stored).block_weights == 1 || traits(output.tensors[t].type).block_weights == 1) continue;
      types.insert(name_of(stored));
      ++count;
    }
    if (count == 0) continue;
    std::string names;
    for (const std::string_view type : types) names += (names.empty() ? "" : ", ") + std::string(type);
    plan.notes.push_back(output.mix + ": " + std::to_string(count) + " tensors are already quantized (" + names +
                         ") and are quantized again; the original checkpoint gives a better file");
  }
}

// Overrides that match no tensor are typing mistakes; those that match only tensors of the keep-list cannot do anything.
void check_overrides(const ModelSource& source, const PlanOptions& options, std::vector<Problem>& problems) {
  std::vector<Problem> already_reported;
  for (const RecipeRule& override : parse_overrides(options.tensor_types, already_reported)) {
    const NamePattern pattern(override.name);
    bool matches = false, decides = false;
    for (const LogicalTensor& tensor : source.tensors()) {
      if (!pattern.found_in(tensor.name)) continue;
      matches = true;
      decides = decides || !kept_type(tensor, DType::Q8_0);
    }
    if (decides) continue;
    problems.push_back({ErrorKind::kUsage, "--tensor-type: '" + printable(override.name) + "' matches " +
                                               (matches ? "only tensors that are never quantized" : "none of the model's tensors")});
  }
}

}  // namespace

std::string relative_name(const PlannedOutput& output, size_t file) {
  return (output.folder.empty() ? "" : output.folder + "/") + output.files[file].name;
}

std::vector<Plan> runs_of(const Plan& plan) {
  if (!plan.one_by_one) return {plan};
  std::vector<Plan> runs;
  for (const PlannedOutput& output : plan.outputs) {
    runs.push_back(plan);
    runs.back().outputs = {output};
  }
  return runs;
}

uint64_t Plan::source_bytes() const {
  return std::accumulate(tensors.begin(), tensors.end(), uint64_t{0},
                         [](uint64_t sum, const PlannedTensor& t) { return sum + t.source_bytes; });
}

uint64_t Plan::output_bytes() const {
  uint64_t bytes = 0;
  for (const PlannedOutput& output : outputs) {
    for (const PlannedFile& file : output.files) bytes += file.size_bytes;
  }
  return bytes;
}

int64_t Plan::n_weights() const {
  return std::accumulate(tensors.begin(), tensors.end(), int64_t{0},
                         [](int64_t sum, const PlannedTensor& t) { return sum + t.shape.n_elements(); });
}

Metadata file_metadata(const Plan& plan, const PlannedOutput& output, size_t file) {
  Metadata metadata;
  if (file == 0) {
    metadata = plan.metadata;
    for (const auto& [key, value] : output.metadata.entries()) metadata.set(key, value);
  }
  if (output.files.size() > 1) {
    metadata.set("split.no", static_cast<uint16_t>(file));
    metadata.set("split.count", static_cast<uint16_t>(output.files.size()));
    metadata.set("split.tensors.count", static_cast<int32_t>(plan.tensors.size()));
  }
  if (file == 0 && output.files.front().n_tensors > 0) gguf::reserve_padding(metadata);
  return metadata;
}

std::vector<std::byte> file_header(const Plan& plan, const PlannedOutput& output, size_t file) {
  return gguf::serialize_header(file_metadata(plan, output, file), file_tensors(plan, output, output.files[file]));
}

void check_layout(const Plan& plan) {
  for (const PlannedOutput& output : plan.outputs) {
    PlannedOutput placed = output;
    place_tensors(plan, placed);
    for (size_t f = 0; f < output.files.size(); ++f) {
      const PlannedFile &is = output.files[f], &expected = placed.files[f];
      if (is.name != expected.name || is.size_bytes != expected.size_bytes || is.data_offset != expected.data_offset) {
        throw Error(ErrorKind::kFormat, "name, size or start of the data is not what its tensors give ('" + printable(expected.name) +
                                            "', " + std::to_string(expected.size_bytes) + ", " + std::to_string(expected.data_offset) + ")")
            .file(is.name);
      }
    }
    for (size_t t = 0; t < output.tensors.size(); ++t) {
      const Placement &is = output.tensors[t], &expected = placed.tensors[t];
      if (is.file != expected.file || is.file_offset != expected.file_offset) {
        throw Error(ErrorKind::kFormat, "is not where the tensors before it end").tensor(plan.tensors[t].name);
      }
    }
  }
}

std::string plan_id(const Plan& plan) {
  Sha256 hash;
  const auto add = [&hash](std::string_view text) {
    hash.update(std::as_bytes(std::span(text)));
    hash.update(std::as_bytes(std::span("\n", 1)));
  };
  add(plan.quern_version);
  for (const PlannedSource& source : plan.sources) add(source.name + " " + source.fingerprint);
  for (const PlannedTensor& tensor : plan.tensors) add(tensor.name + " " + std::to_string(tensor.chunk_rows));
  for (const PlannedOutput& output : plan.outputs) {
    for (size_t f = 0; f < output.files.size(); ++f) {
      add(relative_name(output, f));
      hash.update(file_header(plan, output, f));
    }
  }
  return hash.finish_hex();
}

Plan plan_outputs(const ModelSource& source, const std::filesystem::path& model, const PlanOptions& options,
                  std::vector<Problem>& problems) {
  const std::vector<Problem> of_options = check_options(options);
  problems.insert(problems.end(), of_options.begin(), of_options.end());
  PlanOptions usable = options;
  if (std::any_of(of_options.begin(), of_options.end(), [](const Problem& p) { return p.message.starts_with("--tensors"); }))
    usable.tensors.reset();

  Plan plan;
  plan.quern_version = kVersion;
  plan.model = model;
  plan.mtp = options.mtp;
  plan.folder = options.single_file ? options.output.parent_path() : options.output;
  if (plan.folder.empty()) plan.folder = ".";
  plan.force = options.force;
  plan.lists = !options.single_file;
  plan.one_by_one = options.one_by_one;
  if (options.sync_bytes != 0) plan.sync_bytes = options.sync_bytes;
  if (options.importance != nullptr) plan.imatrix = options.importance->record();
  plan.imatrix_path = options.imatrix;
  if (options.feedback != nullptr) plan.statistics = options.feedback->record();
  plan.statistics_path = options.statistics;
  plan.metadata = model_metadata(source.metadata());
  plan.notes.assign(source.notes().begin(), source.notes().end());
  plan.tensors = select_tensors(source, usable, problems);
  check_overrides(source, options, problems);
  plan.effort = wanted_effort(options, problems);
  for (const WantedOutput& wanted : wanted_outputs(options, plan.effort)) {
    const auto types = planned_types(source, wanted, plan.tensors, options.importance != nullptr, problems);
    if (!types) continue;
    plan.outputs.push_back(plan_output(source, plan, wanted, *types, usable));
    if (wanted.lossless && !options.tensor_types.empty()) plan.notes.push_back(wanted.recipe.name + ": --tensor-type does not apply");
  }
  for (const PlannedOutput& output : plan.outputs) note_blind_types(source, options.importance, output, plan);
  check_types(plan, problems);
  return plan;
}

Plan make_plan(const ModelSource& source, const std::filesystem::path& model, const PlanOptions& options, std::vector<Problem>& problems) {
  Plan plan = plan_outputs(source, model, options, problems);
  plan.sources = plan_sources(source);
  if (plan.outputs.empty()) return plan;
  note_requantization(source, plan);
  check_files(plan, source, problems);
  plan_memory(source, options, plan, problems);
  return plan;
}

int chunks_in_flight(const Plan& plan, int n_threads) {
  const uint64_t left = plan.memory_bytes > plan.base_bytes ? plan.memory_bytes - plan.base_bytes : 0;
  const uint64_t fit = left / std::max<uint64_t>(plan.chunk_bytes, 1);
  const uint64_t wanted = static_cast<uint64_t>(2 * n_threads + 2);
  return static_cast<int>(std::clamp<uint64_t>(fit, 1, wanted));
}

uint64_t predicted_memory(const Plan& plan, int n_threads) {
  return plan.base_bytes + static_cast<uint64_t>(chunks_in_flight(plan, n_threads)) * plan.chunk_bytes;
}

}  // namespace quern
