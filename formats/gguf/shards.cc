#include "formats/gguf/shards.h"

#include "formats/base/error.h"
#include "formats/gguf/gguf.h"

namespace quern::gguf {
namespace {

constexpr int64_t kMaxShards = 65535;  // split.count is a u16

}  // namespace

std::vector<std::string> shard_names(const std::filesystem::path& first, const Metadata& metadata) {
  const std::string name = first.filename().string();
  const int64_t count = metadata.find_int("split.count").value_or(0);
  if (count <= 1) return {name};
  const int64_t number = metadata.get_int("split.no");
  if (count > kMaxShards || number < 0 || number >= count) {
    throw Error(ErrorKind::kFormat, "split.no " + std::to_string(number) + " of split.count " + std::to_string(count) + " makes no sense");
  }
  const std::string suffix = split_name("", number, count),
                    place = "is shard " + std::to_string(number + 1) + " of " + std::to_string(count);
  if (!name.ends_with(suffix)) {
    throw Error(ErrorKind::kFormat, place + ", so its name must end with '" + suffix + "' for the others to be found");
  }
  const std::string prefix = name.substr(0, name.size() - suffix.size());
  if (number != 0) throw Error(ErrorKind::kUsage, place + "; give the first, '" + split_name(prefix, 0, count) + "'");
  std::vector<std::string> names;
  for (int64_t i = 0; i < count; ++i) names.push_back(split_name(prefix, i, count));
  return names;
}

std::filesystem::path first_shard(const std::filesystem::path& shard, const Metadata& metadata) {
  const int64_t count = metadata.find_int("split.count").value_or(0), number = metadata.find_int("split.no").value_or(0);
  if (count <= 1 || count > kMaxShards || number <= 0 || number >= count) return shard;
  const std::string name = shard.filename().string(), suffix = split_name("", number, count);
  if (!name.ends_with(suffix)) return shard;
  const auto first = shard.parent_path() / split_name(name.substr(0, name.size() - suffix.size()), 0, count);
  std::error_code ignored;
  return std::filesystem::exists(first, ignored) ? first : shard;
}

}  // namespace quern::gguf
