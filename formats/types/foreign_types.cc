#include "formats/types/foreign_types.h"

#include <algorithm>
#include <string_view>

// A number means what the program that wrote it says, and programs do not agree: Microsoft's BitNet took numbers that ggml used for types
// of its own and gave up later. Where one number has two meanings both are named.
// Sources: ggml-org/ggml include/ggml.h, ikawrakow/ik_llama.cpp ggml/include/ggml.h, microsoft/BitNet (enum ggml_type of each).

namespace quern {
namespace {

enum class Origin { kIk, kRemoved, kBitNet, kComputing };

struct ForeignType {
  int32_t gguf_id;
  std::string_view name;
  Origin origin;
  std::string_view instead = {};  // of a removed one: the type to make again
};

using enum Origin;

constexpr ForeignType kForeign[] = {
    {4, "Q4_2", kRemoved, "Q4_0"},
    {5, "Q4_3", kRemoved, "Q4_1"},
    {9, "Q8_1", kComputing},
    {15, "Q8_K", kComputing},
    {31, "Q4_0_4_4", kRemoved, "Q4_0"},
    {32, "Q4_0_4_8", kRemoved, "Q4_0"},
    {33, "Q4_0_8_8", kRemoved, "Q4_0"},
    {36, "I2_S", kBitNet, "IQ4_NL_4_4"},
    {37, "I8_S", kBitNet, "IQ4_NL_4_8"},
    {38, "TL1", kBitNet, "IQ4_NL_8_8"},
    {97, "Q8_0_X4", kIk},
    {98, "Q8_1_X4", kIk},
    {99, "Q8_2_X4", kIk},
    {133, "Q6_0", kIk},
    {134, "IQ1_BN", kIk},
    {135, "IQ2_BN", kIk},
    {136, "Q8_K64", kIk},
    {137, "IQ2_K", kIk},
    {138, "IQ3_K", kIk},
    {139, "IQ4_K", kIk},
    {140, "IQ5_K", kIk},
    {141, "IQ6_K", kIk},
    {142, "IQ2_TN", kIk},
    {143, "IQ1_TN", kIk},
    {144, "IQ4_KS", kIk},
    {145, "IQ2_KS", kIk},
    {146, "IQ4_KSS", kIk},
    {147, "Q8_K16", kIk},
    {148, "Q8_K32", kIk},
    {149, "Q8_KR8", kIk},
    {150, "Q8_K128", kIk},
    {151, "Q8_KV", kIk},
    {152, "IQ5_KS", kIk},
    {153, "IQ2_KT", kIk},
    {154, "IQ3_KT", kIk},
    {155, "IQ4_KT", kIk},
    {156, "IQ3_KS", kIk},
    {157, "IQ2_KL", kIk},
    {158, "IQ1_KT", kIk},
    {202, "Q4_0_R8", kIk},
    {206, "Q5_0_R4", kIk},
    {208, "Q8_0_R8", kIk},
    {210, "Q2_K_R4", kIk},
    {211, "Q3_K_R4", kIk},
    {212, "Q4_K_R4", kIk},
    {213, "Q5_K_R4", kIk},
    {214, "Q6_K_R4", kIk},
    {216, "IQ2_XXS_R4", kIk},
    {217, "IQ2_XS_R4", kIk},
    {218, "IQ3_XXS_R4", kIk},
    {219, "IQ1_S_R4", kIk},
    {220, "IQ4_NL_R4", kIk},
    {221, "IQ3_S_R4", kIk},
    {222, "IQ2_S_R4", kIk},
    {223, "IQ4_XS_R8", kIk},
    {229, "IQ1_M_R4", kIk},
    {230, "BF16_R16", kIk},
    {233, "Q6_0_R4", kIk},
    {335, "IQ2_BN_R4", kIk},
    {337, "IQ2_K_R4", kIk},
    {338, "IQ3_K_R4", kIk},
    {339, "IQ4_K_R4", kIk},
    {340, "IQ5_K_R4", kIk},
    {344, "IQ4_KS_R4", kIk},
    {352, "IQ5_KS_R4", kIk},
    {353, "MXFP4_R8", kIk},
    {397, "Q8_K_R16", kIk},
    {398, "Q8_KV_R8", kIk},
    {399, "Q8_K_R8", kIk},
};

const ForeignType* find_foreign(int64_t gguf_id) {
  const ForeignType* found = std::ranges::find(kForeign, gguf_id, &ForeignType::gguf_id);
  return found == std::end(kForeign) ? nullptr : found;
}

}  // namespace

std::string foreign_type_name(int64_t gguf_id) {
  const ForeignType* type = find_foreign(gguf_id);
  if (type == nullptr) return "id " + std::to_string(gguf_id) + " (unknown)";
  const std::string name(type->name);
  switch (type->origin) {
    case kIk:
      return name + " (ik_llama.cpp)";
    case kRemoved:
      return name + " (removed from ggml)";
    case kBitNet:
      return name + " (BitNet) or " + std::string(type->instead) + " (removed from ggml)";
    case kComputing:
      break;
  }
  return name + " (not for files)";
}

std::string why_not_read(int64_t gguf_id) {
  const ForeignType* type = find_foreign(gguf_id);
  if (type == nullptr) return "type id " + std::to_string(gguf_id) + " is none of ggml or of a fork that we know (of a newer program?)";
  const std::string name(type->name), id = " (id " + std::to_string(gguf_id) + ")", instead(type->instead);
  switch (type->origin) {
    case kIk:
      return "type " + name + id + " is ik_llama.cpp's; only that program reads it";
    case kRemoved:
      return "type " + name + id + " was removed from ggml; make the file again, as " + instead;
    case kBitNet:
      return "type id " + std::to_string(gguf_id) + " is BitNet's " + name + ", which only bitnet.cpp reads, or " + instead +
             ", removed from ggml";
    case kComputing:
      break;
  }
  return "type " + name + id + " is one that ggml computes with and no file holds";
}

}  // namespace quern
