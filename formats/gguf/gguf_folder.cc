#include "formats/gguf/gguf_folder.h"

#include <algorithm>
#include <cctype>

#include "formats/base/counted.h"
#include "formats/base/error.h"

namespace quern::gguf {
namespace {

constexpr std::string_view kEnding = ".gguf";
constexpr std::string_view kShardEnding = "-00000-of-00000.gguf";

bool is_model(std::string_view name) {
  if (!name.ends_with(kEnding)) return false;
  return name.find("imatrix") == std::string_view::npos && name.find("mmproj") == std::string_view::npos;
}

// What the shards of a split model have in common: "NAME*-of-00003.gguf". The name itself when it is no shard's.
std::string set_of(const std::string& name) {
  if (name.size() <= kShardEnding.size()) return name;
  const size_t begin = name.size() - kShardEnding.size();
  for (size_t i = 0; i < kShardEnding.size(); ++i) {
    const auto c = static_cast<unsigned char>(name[begin + i]);
    if (kShardEnding[i] == '0' ? std::isdigit(c) == 0 : c != kShardEnding[i]) return name;
  }
  return name.substr(0, begin) + "*" + name.substr(begin + std::string_view("-00000").size());
}

void add_models(const ModelFolder& folder, const std::string& inner, std::vector<std::string>& models) {
  std::string previous;
  for (const std::string& name : folder.names(inner)) {
    if (!is_model(name)) continue;
    const std::string set = set_of(name);
    if (set != previous) models.push_back(inner.empty() ? name : inner + "/" + name);
    previous = set;
  }
}

}  // namespace

std::vector<std::string> models_in(const ModelFolder& folder) {
  std::vector<std::string> models;
  add_models(folder, "", models);
  for (const std::string& name : folder.names()) {
    if (!name.starts_with(".") && std::filesystem::is_directory(folder.path() / name)) add_models(folder, name, models);
  }
  return models;
}

void refuse_folder(const ModelFolder& folder) {
  constexpr size_t kNamed = 8;
  const std::vector<std::string> models = models_in(folder);
  if (models.empty()) throw Error(ErrorKind::kUsage, "holds no model: neither a checkpoint with its config.json nor a GGUF file");
  throw Error(ErrorKind::kUsage, (models.size() == 1 ? "is a folder; name the GGUF file in it: "
                                                     : "is a folder of " + std::to_string(models.size()) + " GGUF models; name one: ") +
                                     first_of(models, kNamed));
}

}  // namespace quern::gguf
