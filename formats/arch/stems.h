#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "formats/model/model_source.h"

namespace quern {

// What GGUF names of tensors say. A tensor of a block is called "blk.N.STEM.weight" or "blk.N.STEM.bias"; the others have no block.

// "blk.12.attn_q.weight" is block 12 and "attn_q.weight"; names outside blocks have layer -1 and are the whole name.
struct BlockName {
  int64_t layer = -1;
  std::string_view name;  // refers to what was split
};
BlockName split_block_name(std::string_view gguf_name) noexcept;

// "blk.12." and the name; the prefix of a whole block when the name is empty.
std::string block_name(int64_t layer, std::string_view name);

// A GGUF file has names but no rules: role and keep-policy of a tensor by its GGUF name. The descriptors use it as well,
// so that a checkpoint and a GGUF made from it give the same answers.
struct TensorKind {
  Role role;
  Keep keep;
  int64_t layer;  // -1 outside blocks
};
TensorKind classify_tensor(std::string_view arch, std::string_view gguf_name, int rank);

// Other weights of the same block that multiply the same input, or one in the same directions: what is known of the input of one of
// them can stand in for that of another. In the order of the table, which puts the most usual first; they need not exist.
std::vector<std::string> weights_with_same_input(std::string_view gguf_name);

// Whether a name matches a pattern such as those of ArchRules::ignored: '*' stands for any text, also none.
bool matches_pattern(std::string_view pattern, std::string_view name) noexcept;

}  // namespace quern
