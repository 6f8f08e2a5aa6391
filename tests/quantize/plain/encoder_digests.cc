// Prints a digest of the blocks that each encoder makes of the same weights, to be compared between machines.

#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

#include "quantize/plain/encode.h"
#include "quantize/plain/encoders.h"

namespace quern {
namespace {

constexpr int64_t kRows = 20;  // more than are encoded together
constexpr int64_t kCols = 512;

// Numbers that do not depend on any library: about normal, with a few outliers.
class Random {
 public:
  float next() {
    float sum = 0.0f;
    for (int k = 0; k < 4; ++k) sum += static_cast<float>(bits() >> 8) * 0x1p-24f - 0.5f;
    return bits() % 64 == 0 ? 8.0f * sum : sum;
  }

 private:
  uint32_t bits() {
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    return static_cast<uint32_t>(state_ >> 32);
  }
  uint64_t state_ = 1;
};

uint64_t fnv1a(const std::vector<std::byte>& bytes) {
  uint64_t hash = 0xcbf29ce484222325u;
  for (const std::byte byte : bytes) hash = (hash ^ static_cast<uint64_t>(byte)) * 0x100000001b3u;
  return hash;
}

void print_digests() {
  Random random;
  std::vector<float> x(static_cast<size_t>(kRows * kCols));
  std::vector<float> importance(static_cast<size_t>(kCols));
  for (float& value : x) value = 0.02f * random.next();
  for (float& h : importance) h = random.next() * random.next();
  for (const DType dtype : {
#define QUERN_LIST(name, revision, feedback, bytes) DType::name,
           QUERN_ENCODERS(QUERN_LIST)
#undef QUERN_LIST
       }) {
    const DTypeTraits& type = traits(dtype);
    std::vector<std::byte> blocks(x.size() / static_cast<size_t>(type.block_weights) * static_cast<size_t>(type.block_bytes));
    for (const Effort effort : {Effort::kFast, Effort::kDefault, Effort::kBest}) {
      encode_rows(dtype, x, kRows, kCols, {}, blocks, effort);
      const uint64_t plain = fnv1a(blocks);
      encode_rows(dtype, x, kRows, kCols, importance, blocks, effort);
      std::printf("%s %s %016llx %016llx\n", std::string(name_of(dtype)).c_str(), std::string(name_of(effort)).c_str(),
                  static_cast<unsigned long long>(plain), static_cast<unsigned long long>(fnv1a(blocks)));
    }
  }
}

}  // namespace
}  // namespace quern

int main() { quern::print_digests(); }
