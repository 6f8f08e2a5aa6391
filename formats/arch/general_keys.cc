#include "formats/arch/general_keys.h"

#include <algorithm>
#include <cctype>
#include <optional>

#include "formats/arch/model_card.h"
#include "formats/arch/model_name.h"
#include "formats/base/error.h"
#include "formats/base/file.h"

// Every key has a list of sources, the surest first: what the user said, the README's front matter, the parts of the folder's name, figures
// computed from the rules. A README and a generation_config.json are suggestions, so whatever is wrong with them is left out with a note
// and nothing stops. A name that the user gives replaces the README's fields of names as well, because those speak of the model by its old
// name. Keys are set in one fixed order, which is that of the file.

namespace quern {

namespace {

namespace fs = std::filesystem;

struct WeightCounts {
  int64_t total = 0;
  int64_t one_expert = 0;  // of each layer
  int64_t experts = 0;     // of all layers together
  int64_t n_experts = 0;
};

// Tensors that may turn out to be duplicates do not count.
WeightCounts count_weights(const ArchRules& rules) {
  WeightCounts counts;
  int64_t expert_sum = 0, n_stacks = 0;
  for (const TensorRule& rule : rules.rules) {
    if (!rule.drop_if_equal_to.empty()) continue;
    const int64_t n = rule.shape.n_elements();
    counts.total += n;
    if (rule.role != Role::kRoutedExpert) continue;
    counts.experts += n;
    counts.one_expert += n / rule.shape[0];
    expert_sum += rule.shape[0];
    ++n_stacks;
  }
  if (n_stacks > 0) counts.n_experts = expert_sum / n_stacks;
  return counts;
}

ModelCard read_model_card(const ModelFolder& folder, std::vector<std::string>& notes) {
  constexpr uint64_t kMaxReadmeBytes = uint64_t{16} << 20;
  try {
    if (folder.has("README.md")) return ModelCard::parse(folder.read_text("README.md", kMaxReadmeBytes));
  } catch (const Error& error) {
    notes.push_back("README.md: " + error.message() + "; its license, base model and tags are left out");
  }
  return {};
}

// Last component of the path; for ".../models--ORG--NAME/snapshots/HASH" the repository ORG/NAME.
std::string folder_id(const fs::path& folder) {
  std::error_code ignored;
  fs::path path = fs::weakly_canonical(folder, ignored);
  if (path.empty()) path = folder.lexically_normal();
  if (!path.has_filename()) path = path.parent_path();
  constexpr std::string_view kCache = "models--";
  const std::string repository = path.parent_path().parent_path().filename().string();
  if (path.parent_path().filename() == "snapshots" && repository.starts_with(kCache)) {
    const std::string id = repository.substr(kCache.size());
    const size_t dashes = id.find("--");
    return dashes == std::string::npos ? id : id.substr(0, dashes) + "/" + id.substr(dashes + 2);
  }
  return path.filename().string();
}

class GeneralKeys {
 public:
  GeneralKeys(const ModelCard& card, Metadata& metadata) : card_(card), metadata_(metadata) {}

  void text(const std::string& suffix, const std::string& value) {
    if (!value.empty()) metadata_.set("general." + suffix, value);
  }
  void texts(const std::string& suffix, std::vector<std::string> values) {
    if (!values.empty()) metadata_.set("general." + suffix, std::move(values));
  }
  // The first of these front matter fields that is there.
  std::string card(std::initializer_list<std::string_view> fields) const {
    for (std::string_view field : fields) {
      if (std::string value = card_.text(field); !value.empty()) return value;
    }
    return {};
  }
  std::vector<std::string> card_lists(std::initializer_list<std::string_view> fields) const {
    std::vector<std::string> all;
    for (std::string_view field : fields) {
      for (std::string& item : card_.list(field)) all.push_back(std::move(item));
    }
    return all;
  }
  Metadata& metadata() { return metadata_; }

 private:
  const ModelCard& card_;
  Metadata& metadata_;
};

// What generation_config.json suggests. A value of another kind is not worth stopping for: it is left out with a note.
class Suggestions {
 public:
  Suggestions(const ModelConfig& config, std::vector<std::string>& notes) : config_(config), notes_(notes) {}

  std::optional<double> real(const char* key) const {
    return or_note([&] { return config_.find_float(prefixed(key)); }, std::optional<double>());
  }
  bool flag(const char* key, bool absent) const {
    return or_note([&] { return config_.get_bool(prefixed(key), absent); }, absent);
  }

 private:
  static std::string prefixed(const char* key) { return std::string("generation_config.") + key; }

  template <typename Read, typename Value>
  Value or_note(const Read& read, Value absent) const {
    try {
      return read();
    } catch (const Error& error) {
      notes_.push_back(error.message() + "; left out");
      return absent;
    }
  }

  const ModelConfig& config_;
  std::vector<std::string>& notes_;
};

void set_sampling(const Suggestions& suggestions, Metadata& metadata) {
  if (!suggestions.flag("do_sample", true)) return;
  const auto set_real = [&](const char* suffix, const char* key) {
    if (const auto value = suggestions.real(key)) metadata.set(std::string("general.sampling.") + suffix, static_cast<float>(*value));
  };
  if (const auto k = suggestions.real("top_k"); k && *k >= 0 && *k <= 1e6) {
    metadata.set("general.sampling.top_k", static_cast<int32_t>(*k));
  }
  set_real("top_p", "top_p");
  set_real("min_p", "min_p");
  set_real("temp", "temperature");
  set_real("penalty_repeat", "repetition_penalty");
}

// The names come from a flag, from the README's own fields, or from the parts of `id`.
void set_names(GeneralKeys& keys, const ModelName& id, const std::string& given_name, const std::string& computed_size, bool mtp) {
  const bool given = !given_name.empty();
  const auto card = [&](std::initializer_list<std::string_view> fields) { return given ? std::string() : keys.card(fields); };
  const auto first = [](const std::string& a, const std::string& b) { return a.empty() ? b : a; };
  keys.text("name", given ? given_name : first(card({"name", "model_name"}), title_of(id.full)));
  keys.text("author", keys.card({"author", "model_author", "model_creator"}));
  keys.text("version", first(card({"version", "model_version"}), id.version));
  keys.text("organization", first(card({"organization", "model_organization"}), title_of(id.organization)));
  keys.text("finetune", first(card({"finetune", "model_finetune"}), id.finetune));
  keys.text("basename", first(card({"basename", "model_basename"}), id.basename));
  keys.text("description", keys.card({"description", "model_description"}));
  if (!mtp) keys.text("size_label", first(first(card({"size_label", "model_size_label"}), id.size_label), computed_size));
}

void set_license(GeneralKeys& keys, const ModelOptions& options) {
  if (options.license) return keys.text("license", *options.license);
  std::string license;
  for (const std::string& id : keys.card_lists({"license"})) license += (license.empty() ? "" : ",") + id;
  keys.text("license", license);
  keys.text("license.name", keys.card({"license_name"}));
  keys.text("license.link", keys.card({"license_link"}));
}

// NAME or ORG/NAME as the hub has them: letters, digits, '-', '_' and '.'. Fine-tuning programs write paths of their machine instead.
bool is_hub_id(std::string_view id) {
  const auto fits = [](char c) { return std::isalnum(static_cast<unsigned char>(c)) || c == '-' || c == '_' || c == '.' || c == '/'; };
  return std::ranges::all_of(id, fits) && std::ranges::count(id, '/') <= 1 && !id.starts_with('/') && !id.ends_with('/') &&
         !id.starts_with('.');
}

std::vector<std::string> card_base_models(const GeneralKeys& keys, std::vector<std::string>& notes) {
  std::vector<std::string> ids;
  for (std::string& id : keys.card_lists({"base_model", "base_models"})) {
    if (is_hub_id(id) || id.find("://") != std::string::npos) {
      ids.push_back(std::move(id));
    } else {
      notes.push_back("README.md: base_model '" + printable(id, 60) + "' is no repository of a hub (ORG/NAME); left out");
    }
  }
  return ids;
}

void set_base_models(GeneralKeys& keys, const std::vector<std::string>& ids, int64_t total_weights) {
  if (ids.empty()) return;
  keys.metadata().set("general.base_model.count", static_cast<uint32_t>(ids.size()));
  for (size_t i = 0; i < ids.size(); ++i) {
    const std::string prefix = "base_model." + std::to_string(i) + ".";
    if (ids[i].find("://") != std::string::npos) {
      keys.text(prefix + "repo_url", ids[i]);
      continue;
    }
    const ModelName name = parse_model_name(ids[i], total_weights);
    keys.text(prefix + "name", title_of(name.full));
    keys.text(prefix + "version", name.version);
    if (name.organization.empty()) continue;
    keys.text(prefix + "organization", title_of(name.organization));
    keys.text(prefix + "repo_url", "https://huggingface.co/" + name.organization + "/" + name.full);
  }
}

}  // namespace

std::string size_label(const ArchRules& rules) {
  const WeightCounts counts = count_weights(rules);
  if (counts.n_experts == 0) return rounded_count(counts.total);
  return std::to_string(counts.n_experts) + "x" + rounded_count(counts.total - counts.experts + counts.one_expert);
}

void set_general_keys(const ModelFolder& folder, const ModelConfig& config, const ArchDescriptor& arch, const ArchRules& rules,
                      const ModelOptions& options, Metadata& metadata, std::vector<std::string>& notes) {
  const ModelCard card = read_model_card(folder, notes);
  GeneralKeys keys(card, metadata);
  const int64_t total_weights = count_weights(rules).total;
  const std::string given = options.name.value_or("");
  const ModelName id = parse_model_name(given.empty() ? folder_id(folder.path()) : given, total_weights);

  keys.text("architecture", std::string(arch.gguf_arch));
  keys.text("type", "model");
  set_sampling({config, notes}, metadata);
  set_names(keys, id, given, size_label(rules), options.mtp);
  set_license(keys, options);
  set_base_models(keys, options.base_models.empty() ? card_base_models(keys, notes) : options.base_models, total_weights);
  keys.texts("tags", keys.card_lists({"tags", "pipeline_tag"}));
  keys.texts("languages", keys.card_lists({"language", "languages"}));
}

}  // namespace quern
