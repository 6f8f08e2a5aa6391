#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "formats/encodings/encoding.h"

namespace quern::encodings {

// Throws kUnsupported for a quantization_config of a method that no encoding has.
void refuse_unknown_method(const ModelConfig& config);

// Throws kUnsupported for the `quantization` object of MLX, and what check_config of the encodings throws.
void check_config(const ModelConfig& config);

// What config.json promises about a tensor (Encoding::promise); without an encoding's word, `plain` exactly.
Promise promise(const ModelConfig& config, const LogicalTensor& tensor, DType plain);

// Whether the checkpoint has the weights `name` in any encoding, under that name or another.
bool is_stored(const safetensors::Checkpoint& checkpoint, const ModelConfig& config, std::string_view name);

// Pairs the weights `name` of a rule, of `shape`, with all that their encoding needs. `integer` tells tables from weights. Everything
// that is wrong goes to `problems`, and then there is no result.
std::optional<EncodedTensor> find_encoded(const safetensors::Checkpoint& checkpoint, const ModelConfig& config, std::string_view name,
                                          const Shape& shape, bool integer, Problems& problems);

// Names of the weights that a tensor of this name could be a companion of ("X.weight" for "X.scale"), empty for other names.
std::vector<std::string> weights_of(std::string_view name);

// The unsupported encoding that a stored name gives away by its ending ("qweight" is GPTQ or AWQ), empty for names that say nothing.
std::string_view foreign_encoding(std::string_view name) noexcept;

}  // namespace quern::encodings
