#include "convert/plan/plan_checks.h"

#include <algorithm>
#include <map>
#include <set>

#include "formats/base/file.h"
#include "formats/base/name_pattern.h"
#include "formats/base/nearest.h"
#include "formats/base/sha256.h"
#include "quantize/plain/encode.h"

namespace quern {
namespace fs = std::filesystem;
namespace {

template <typename Range, typename Name>
std::string suggestion(std::string_view wanted, const Range& candidates, Name name) {
  std::vector<std::string_view> names;
  for (const auto& candidate : candidates) names.push_back(name(candidate));
  return did_you_mean(wanted, names);
}

std::vector<DType> writable_types() {
#define QUERN_TYPE_IN_LIST(name, id, weights, bytes) DType::name,
  std::vector<DType> types = {QUERN_DTYPES(QUERN_TYPE_IN_LIST)};
#undef QUERN_TYPE_IN_LIST
  std::erase_if(types, [](DType type) { return !has_encoder(type); });
  return types;
}

std::vector<std::string_view> mix_names() {
  std::vector<std::string_view> names;
  for (const Mix& mix : all_mixes()) names.push_back(mix.name);
  return names;
}

bool is_name_pattern(const std::string& flag, const std::string& pattern, std::vector<Problem>& problems) {
  try {
    NamePattern compiled(pattern);
    return true;
  } catch (const Error& error) {
    problems.push_back({ErrorKind::kUsage, flag + ": " + error.message()});
    return false;
  }
}

}  // namespace

std::vector<RecipeRule> parse_overrides(const std::vector<std::string>& tensor_types, std::vector<Problem>& problems) {
  std::vector<RecipeRule> overrides;
  for (const std::string& text : tensor_types) {
    const size_t equals = text.rfind('=');
    if (equals == std::string::npos || equals == 0) {
      problems.push_back({ErrorKind::kUsage, "--tensor-type: '" + printable(text) + "' is not REGEX=TYPE"});
      continue;
    }
    const std::string pattern = text.substr(0, equals), type = text.substr(equals + 1);
    const bool usable = is_name_pattern("--tensor-type", pattern, problems);
    const std::optional<DType> found = find_dtype_by_name(type);
    if (!found || !has_encoder(*found)) {
      problems.push_back({ErrorKind::kUsage, "--tensor-type: " + std::string(found ? "cannot write type '" : "unknown type '") +
                                                 printable(type) + "'" +
                                                 suggestion(type, writable_types(), [](DType t) { return name_of(t); })});
    } else if (usable) {
      RecipeRule rule;
      rule.name = pattern;
      rule.type.type = *found;
      overrides.push_back(rule);
    }
  }
  return overrides;
}

std::vector<const Mix*> parse_types(const std::vector<std::string>& types, std::vector<Problem>& problems) {
  std::vector<const Mix*> mixes;
  for (const std::string& type : types) {
    const Mix* mix = find_mix(type);
    if (mix == nullptr) {
      problems.push_back({ErrorKind::kUsage, "unknown type '" + printable(type) + "'" + known_names(type, mix_names())});
    } else if (std::find(mixes.begin(), mixes.end(), mix) != mixes.end()) {
      problems.push_back({ErrorKind::kUsage, "type " + std::string(mix->name) + " is asked for twice"});
    } else {
      mixes.push_back(mix);
    }
  }
  return mixes;
}

std::vector<Problem> check_options(const PlanOptions& options) {
  std::vector<Problem> problems;
  if (options.output.empty()) problems.push_back({ErrorKind::kUsage, "no output given; add -o"});
  const size_t n_outputs = options.types.size() + options.recipes.size();
  if (n_outputs == 0) problems.push_back({ErrorKind::kUsage, "no type given; add --type, for example --type Q4_K_M"});
  if (options.single_file && n_outputs > 1) problems.push_back({ErrorKind::kUsage, "one output file can have one type only"});
  const std::string extension(options.container->extension());
  if (options.single_file && !options.output.empty() && options.output.extension() != extension) {
    problems.push_back({ErrorKind::kUsage, "the output file '" + printable(options.output.string()) + "' must end in " + extension});
  }
  parse_types(options.types, problems);
  parse_overrides(options.tensor_types, problems);
  if (options.tensors) is_name_pattern("--tensors", *options.tensors, problems);
  return problems;
}

bool can_hold(const Container& container, const std::vector<PlannedTensor>& tensors, const std::vector<DType>& types,
              const std::string& recipe, std::vector<Problem>& problems) {
  std::map<DType, std::string> refused;  // with the first tensor of the type
  for (size_t t = 0; t < tensors.size(); ++t) {
    if (!container.holds(types[t])) refused.try_emplace(types[t], tensors[t].name);
  }
  for (const auto& [type, tensor] : refused) {
    problems.push_back({ErrorKind::kUnsupported, recipe + ": " + std::string(container.title()) + " cannot hold " +
                                                     std::string(name_of(type)) + " (the first tensor of this type is '" + tensor + "')"});
  }
  return refused.empty();
}

void check_types(const Plan& plan, std::vector<Problem>& problems) {
  std::set<std::string> unnameable;  // what several outputs cannot name is one problem
  for (const PlannedOutput& output : plan.outputs) {
    for (const PlannedTensor& tensor : plan.tensors) {
      const std::string reason = output.container->why_not_name(tensor.name);
      if (reason.empty() || !unnameable.insert(tensor.name + reason).second) continue;
      problems.push_back({ErrorKind::kUnsupported, "tensor name '" + printable(tensor.name) + "' " + reason});
    }
  }
  for (const PlannedOutput& output : plan.outputs) {
    std::map<DType, std::vector<std::string>> unwritable;
    for (size_t t = 0; t < plan.tensors.size(); ++t) {
      const Placement& placement = output.tensors[t];
      if (!placement.copied && (plan.tensors[t].integer || !has_encoder(placement.type))) {
        unwritable[placement.type].push_back(plan.tensors[t].name);
      }
    }
    for (const auto& [type, names] : unwritable) {
      problems.push_back({ErrorKind::kUnsupported, output.mix + ": this version cannot write " + std::string(name_of(type)) + " (" +
                                                       std::to_string(names.size()) + " tensors, the first is '" + names.front() + "')"});
    }
  }
}

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

void check_quantizable(const ModelSource& source, const Mix* mix, std::vector<Problem>& problems) {
  if (mix == nullptr || is_lossless(*mix) || traits(mix->base).block_weights == 1) return;
  if (std::ranges::any_of(source.tensors(), [](const LogicalTensor& tensor) { return !kept_type(tensor, DType::Q8_0); })) return;
  problems.push_back({ErrorKind::kUsage, std::string(mix->name) +
                                             ": none of the model's tensors is known to be one that may be quantized (" + "architecture '" +
                                             printable(source.metadata().find_string("general.architecture").value_or("")) + "')"});
}

std::string fingerprint(const fs::path& path) {
  constexpr uint64_t kProbeBytes = 64 * 1024;
  const InputFile file(path);
  const uint64_t n = std::min(file.size_bytes(), kProbeBytes);
  std::vector<std::byte> probe(static_cast<size_t>(2 * n));
  file.read_at(0, std::span(probe).first(static_cast<size_t>(n)));
  file.read_at(file.size_bytes() - n, std::span(probe).last(static_cast<size_t>(n)));
  return sha256_hex(probe);
}

void check_source(const Plan& plan, const ModelSource& source) {
  const auto changed = [](const std::string& what) {
    throw Error(ErrorKind::kFormat, "the plan was made from another source: " + what + "; make the plan again");
  };
  const auto files = source.files();
  if (files.size() != plan.sources.size()) {
    changed(std::to_string(plan.sources.size()) + " files then, " + std::to_string(files.size()) + " now");
  }
  for (size_t i = 0; i < files.size(); ++i) {
    const PlannedSource& planned = plan.sources[i];
    if (files[i].name != planned.name) changed("file '" + planned.name + "' is missing");
    if (files[i].size_bytes != planned.size_bytes || fingerprint(files[i].path) != planned.fingerprint) {
      changed("file '" + planned.name + "' has changed");
    }
  }
  const auto tensors = source.tensors();
  for (size_t t = 0; t < plan.tensors.size(); ++t) {
    const PlannedTensor& tensor = plan.tensors[t];
    const LogicalTensor* now = tensor.source_index < tensors.size() ? &tensors[tensor.source_index] : nullptr;
    const bool same = now != nullptr && now->name == tensor.name && now->shape == tensor.shape && now->n_slices == tensor.n_slices &&
                      now->source_bytes == tensor.source_bytes && (now->keep == Keep::kInteger) == tensor.integer;
    if (!same) changed("tensor '" + tensor.name + "' differs");
    for (const PlannedOutput& output : plan.outputs) {
      if (output.tensors[t].copied != source.can_copy(tensor.source_index, output.tensors[t].type)) {
        changed("tensor '" + tensor.name + "' is stored otherwise");
      }
    }
  }
  std::vector<Problem> problems;
  check_types(plan, problems);
  if (!problems.empty()) throw Error(problems.front().kind, problems.front().message);
}

}  // namespace quern
